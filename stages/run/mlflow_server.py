"""Curves on an MLflow tracking server, through its REST API (2.0, mlflow.org/docs: "REST API").

Of MLflow's own client this needs nothing, so its packages are not among this project's. Access is
by the client's variables: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD.
"""

import base64
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from stages.run.curves import Curve, Series, after, agrees
from stages.run.errors import UserError
from stages.run.files import text_hash

URI_VARIABLE = "MLFLOW_TRACKING_URI"
_CURVE_TAG = "splatfix.curve"  # a digest of the curve's name
_TIMEOUT_S = 30.0
_BATCH = 1000  # metrics that the server takes at once
_RUNS = 100  # of one name that are looked through
_MISSING = "RESOURCE_DOES_NOT_EXIST"


class MlflowServer:
    """One experiment of a tracking server."""

    def __init__(self, uri: str, experiment: str):
        """Find the experiment, or create it.

        Raises UserError for an address that is no server's, no answer, or no access.
        """
        address = _split(uri)
        if address and "@" in address.netloc:  # and in no message: a password may be there
            raise UserError(
                address.hostname or URI_VARIABLE,
                "an address with a name or a password in it",
                expected="http://... or https://... of the server alone",
                fix="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead",
            )
        if not address or address.scheme not in ("http", "https"):
            raise UserError(
                uri or URI_VARIABLE,
                "no address of a tracking server",
                expected="http://... or https://...",
                fix="for a folder or a database run `mlflow server --backend-store-uri ...`, and "
                f"name that server by --to or {URI_VARIABLE}",
            )
        self._uri, self._runs = uri.rstrip("/"), dict[str, tuple[str, dict[str, Series]]]()
        self._experiment = self._experiment_of(experiment)

    def send(self, curve: Curve) -> int:
        """Add what is new to the curve's run, or to a new run where another one has its name."""
        run, before = self._run_of(curve)
        metrics = [
            {"key": key, "value": value, "step": step, "timestamp": int(1000 * curve.written_s)}
            for key, series in curve.series.items()
            for step, value in after(before.get(key, []), series)
        ]
        for begin in range(0, len(metrics), _BATCH):
            batch = metrics[begin : begin + _BATCH]
            self._call("runs/log-batch", {"run_id": run, "metrics": batch})
        self._runs[curve.name] = run, {**before, **curve.series}
        if metrics and curve.is_finished:
            ended = {"status": "FINISHED", "end_time": int(1000 * curve.written_s)}
            self._call("runs/update", {"run_id": run, **ended})
        return len(metrics)

    def _experiment_of(self, name: str) -> str:
        try:
            found = self._call(
                "experiments/get-by-name?" + urllib.parse.urlencode({"experiment_name": name})
            )
            return found["experiment"]["experiment_id"]
        except _Refused as error:
            if error.code != _MISSING:
                raise
        return self._call("experiments/create", {"name": name})["experiment_id"]

    def _run_of(self, curve: Curve) -> tuple[str, dict[str, Series]]:
        """Identifier of a run with this beginning, and what it has."""
        run, before = self._runs.get(curve.name, ("", {}))
        if run and agrees(before.get(curve.key, []), curve.series[curve.key]):
            return run, before
        tag = text_hash(curve.name)[:32]
        found = self._call(
            "runs/search",
            {
                "experiment_ids": [self._experiment],
                "filter": f"tags.`{_CURVE_TAG}` = '{tag}'",
                "max_results": _RUNS,
            },
        )
        for one in found.get("runs", []):
            run = one["info"]["run_id"]
            if agrees(self._history(run, curve.key), curve.series[curve.key]):
                return run, {key: self._history(run, key) for key in curve.series}
        created = self._call(
            "runs/create",
            {
                "experiment_id": self._experiment,
                "run_name": curve.name,
                "start_time": int(1000 * time.time()),
                "tags": [{"key": _CURVE_TAG, "value": tag}],
            },
        )
        return created["run"]["info"]["run_id"], {}

    def _history(self, run: str, key: str) -> Series:
        query = urllib.parse.urlencode({"run_id": run, "metric_key": key})
        points = self._call(f"metrics/get-history?{query}").get("metrics", [])
        return sorted({int(one.get("step", 0)): float(one["value"]) for one in points}.items())

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """POST a body, or GET without one. Raises UserError for no answer, or a refusal."""
        request = urllib.request.Request(
            f"{self._uri}/api/2.0/mlflow/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if access := _authorization():
            # Where the server redirects to, it is not sent.
            request.add_unredirected_header("Authorization", access)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                value = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise _refused(self._uri, error) from error
        except (OSError, ValueError) as error:  # URLError is an OSError
            raise UserError(
                self._uri,
                f"no answer of a tracking server ({getattr(error, 'reason', error)})",
                expected="MLflow's REST API",
                fix=f"check the address (--to or {URI_VARIABLE}), and that the server runs",
            ) from error
        return value


class _Refused(UserError):
    """What the server answered instead of a result."""

    code = ""


def _refused(uri: str, error: urllib.error.HTTPError) -> _Refused:
    try:
        value = json.loads(error.read())
        code, message = str(value["error_code"]), str(value["message"])
    except (ValueError, TypeError, LookupError, OSError):
        code, message = "", str(error.reason)
    fix = ""
    if error.code in (401, 403):
        fix = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    refused = _Refused(uri, f"refused: {message} (HTTP {error.code})", fix=fix)
    refused.code = code
    return refused


def _split(uri: str) -> urllib.parse.SplitResult | None:
    try:
        return urllib.parse.urlsplit(uri)
    except ValueError:  # such as half an IPv6 address
        return None


def _authorization() -> str:
    """The header of this name; empty without access. Raises UserError for a broken token."""
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if token:
        if not (token.isascii() and token.isprintable()):  # an error of the header would show it
            raise UserError(
                "MLFLOW_TRACKING_TOKEN",
                "has line ends, or characters that no token has",
                expected="the token alone",
                fix="set it again, without line ends",
            )
        return f"Bearer {token}"
    if user is None:
        return ""
    pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
