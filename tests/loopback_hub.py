"""A stand-in of the Hugging Face hub on loopback: what a client needs to list and fetch a model."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_of_a_user_who_accepted"


class Hub:
    """Models by id, each a folder; those in `gated` want a token, `broken` files break off."""

    def __init__(self, models: dict[str, Path], gated: frozenset[str] = frozenset()):
        self.models, self.gated = models, gated
        self.broken: set[str] = set()
        self.fetched: list[str] = []
        self.url = ""


@contextmanager
def served(models: dict[str, Path], gated: frozenset[str] = frozenset()) -> Iterator[Hub]:
    """A running hub; `url` is for HF_ENDPOINT."""
    hub = Hub(models, gated)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _files(folder: Path) -> list[str]:
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            for name, folder in hub.models.items():
                is_api = f"{path}/".startswith(f"/api/models/{name}/")
                if not is_api and not path.startswith(f"/{name}/resolve/"):
                    continue
                if name in hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
                revision = path.split("/revision/")[-1] if "/revision/" in path else "main"
                if revision not in ("main", "v1", COMMIT):
                    return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
                if is_api:
                    return self.answer(200, json.dumps(_listing(name, folder, path)).encode(), {})
                return self.send_file(folder, path.split("/resolve/")[1].partition("/")[2])
            return self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})

        def send_file(self, folder: Path, name: str) -> None:
            data = (folder / name).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}
            if self.command == "GET":
                hub.fetched.append(name)
                if name in hub.broken:
                    return self.answer(410, b"", {})
            return self.answer(200, data, headers)

        def answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _listing(name: str, folder: Path, path: str) -> object:
    files = _files(folder)
    if "/tree/" in path:
        return [
            {"type": "file", "path": one, "size": (folder / one).stat().st_size, "oid": "0" * 40}
            for one in files
        ]
    return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": one} for one in files]}
