"""Whether stages that are killed or stopped end byte-identical when they are run again.

    python -m benchmarks.kills [--stages train tune] [--signals KILL INT] [--whom dvc] [--out FILE]

A reduced study is run once in its own clone. Then each stage is started repeatedly; a signal is
sent to the stage, to the DVC that started it, or to their process group, at a random time from
`--seed`, and the same command is run again. Required: no process survives the signal, Ctrl-C and
SIGTERM leave no traceback, and the final outputs equal those of the first run. DVC itself ignores
Ctrl-C while a stage runs.
"""

import argparse
import itertools
import math
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.command_line import launch
from benchmarks.demo_walltime import environment, prepare
from stages.run.files import file_hash, folder_hash, write_json

SCENES = ("hi4d_pair00_dance", "hi4d_pair02_dance", "hi4d_pair15_fight")
STAGES = {
    "train": f"train@{SCENES[2]}",
    "tune": "tune",
    "fixed_views": f"fixed_views@{SCENES[2]}-tuned",
    "capture_train": "capture_train@demo_room-filtered",
    "static_prepare": "static_prepare@static_pair02_talk",
    "static_train": "static_train@static_pair02_talk-stereo",
}
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
WHOM = ("stage", "dvc", "group")
REDUCED = (
    f"demo.scenes=[{','.join(SCENES)}]",
    f"study.scenes=[{','.join(SCENES)}]",
    f"study.evaluated_scenes=[{','.join(SCENES[1:])}]",
    f"study.tuning_scenes=[{SCENES[0]}]",
    f"study.downstream_scenes=[{SCENES[2]}]",
    "study.methods=[none,tuned-post,tuned-distill]",
    "study.fixers=[tuned]",
    "study.subject=none",
    "weights.download=false",
    "prepare.height_px=96",
    "train.max_steps=40",
    "runtime.train.workers=1",
    "runtime.train.checkpoint_every=5",
    "train.save_steps=[20]",
    "pairs.steps=[20]",
    "novel_views.align_steps=3",
    "tune.steps=30",
    "tune.crop_px=0",
    "runtime.tune.checkpoint_every=2",
    "tune.validate_every=10",
    "distill.rounds=4",
    "distill.steps=4",
    "capture_study.variants=[filtered]",
    "demo_capture.photographs=6",
    "demo_capture.width_px=96",
    "demo_capture.height_px=72",
    "static.cameras=[monocular,stereo]",
    "capture_train.align_steps=1",
)
_END_S, _RUN_S = 20.0, 3600.0

Row = dict[str, Any]


def main() -> None:
    """Print a row per kill; the exit code is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=list(SIGNALS))
    parser.add_argument("--whom", nargs="+", choices=WHOM, default=list(WHOM))
    parser.add_argument("--seed", type=int, default=0, help="of the random times of kills")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="start no kill after this time"
    )
    parser.add_argument("--out", type=Path, help="write the rows as JSON as well")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="splatfix-kills-") as scratch:
        folder = Path(scratch, "clone")
        prepare(folder, REDUCED)
        env = environment()
        first = run(folder, env, ["dvc", "repro", *(STAGES[name] for name in args.stages)])
        if first.returncode:
            sys.exit(first.stdout)
        print(f"{'stage':15}{'whom':7}{'signal':8}{'after':>7}  code  again  left  same")
        whole_s = {name: seconds_of(folder, env, STAGES[name]) for name in args.stages}
        kinds = list(itertools.product(args.whom, args.signals))
        random.Random(args.seed).shuffle(kinds)  # so that a shortened run covers most
        until = time.monotonic() + 60 * args.minutes
        for (whom, signal_name), name in itertools.product(kinds, args.stages):
            if time.monotonic() > until:
                break
            rng = random.Random(f"{args.seed} {name} {whom} {signal_name}")
            after_s = whole_s[name] * rng.uniform(0.1, 0.95)
            row = trial(folder, env, STAGES[name], whom, SIGNALS[signal_name], after_s)
            rows.append({"stage": name, "whom": whom, "signal": signal_name, **row})
            print(line(rows[-1]), flush=True)
    if args.out:
        write_json(args.out, {"seed": args.seed, "rows": rows})
    sys.exit(not all(is_right(row) for row in rows))


def line(row: Row) -> str:
    """A row of the table."""
    text = "{stage:15}{whom:7}{signal:8}{after_s:6.2f}s{code:6}{again:7}{left:6}  {same}".format(
        **row
    )
    return text if is_right(row) else f"{text}  WRONG\n{row['said']}"


def is_right(row: Row) -> bool:
    """Whether a kill ended as it should."""
    quiet = row["signal"] == "KILL" or "Traceback" not in row["said"]
    return row["same"] and not row["left"] and not row["again"] and quiet


def seconds_of(folder: Path, env: Mapping[str, str], address: str) -> float:
    """Seconds of an undisturbed stage."""
    before = contents(folder, address)
    clean(folder, address)
    began = time.monotonic()
    ended = run(folder, env, command(folder, address))
    took = time.monotonic() - began
    if ended.returncode or contents(folder, address) != before:
        sys.exit(f"{address} is not reproducible without signals\n{ended.stdout}")
    return took


def trial(
    folder: Path, env: Mapping[str, str], address: str, whom: str, number: int, after_s: float
) -> Row:
    """Start a stage, send a signal after some seconds, start it again, and compare.

    code and again: exit codes of both commands; left: surviving processes.
    """
    expected = contents(folder, address)
    clean(folder, address)
    words = command(folder, address)
    if whom != "stage":
        words = ["dvc", "repro", "--single-item", "--force", address]
    with (folder.parent / "said").open("w+") as log:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        if whom != "stage":  # the time counts from the stage's start
            until = time.monotonic() + _RUN_S
            while not at_work(folder) and process.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
        time.sleep(after_s)
        send = os.killpg if whom == "group" else os.kill
        if process.poll() is None:
            send(process.pid, number)
        code = process.wait(timeout=_RUN_S)
        until = time.monotonic() + _END_S
        while (left := at_work(folder)) and time.monotonic() < until:
            time.sleep(0.02)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        log.seek(0)
        first = log.read()
    again = run(folder, env, words)
    same = contents(folder, address) == expected
    return {
        "after_s": round(after_s, 2),
        "code": code,
        "again": again.returncode,
        "left": len(left),
        "same": same,
        "said": first + again.stdout,
    }


def command(folder: Path, address: str) -> list[str]:
    """The command of a stage."""
    words = shlex.split(_locked(folder, address)["cmd"])
    return [sys.executable, *words[1:]]


def contents(folder: Path, address: str) -> dict[str, str]:
    """Hash of each out of a stage; empty if it is missing."""
    paths = [folder / out["path"] for out in _locked(folder, address)["outs"]]
    hashes = (
        folder_hash(path) if path.is_dir() else file_hash(path) if path.is_file() else ""
        for path in paths
    )
    return dict(zip(map(str, paths), hashes, strict=True))


def clean(folder: Path, address: str) -> None:
    """Remove a stage's outs and all resume states."""
    for out in _locked(folder, address)["outs"]:
        path = folder / out["path"]
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.rmtree(folder / ".work", ignore_errors=True)


def at_work(folder: Path) -> list[int]:
    """Processes of stages whose working folder is this one."""
    pids = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if any(word.startswith(b"stages.") or b"/stages/" in word for word in words[1:4]):
                pids += [int(place.name)] if (place / "cwd").resolve() == folder.resolve() else []
        except OSError:
            continue
    return pids


def run(folder: Path, env: Mapping[str, str], words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        words,
        cwd=folder,
        env=env,
        text=True,
        timeout=_RUN_S,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _locked(folder: Path, address: str) -> Any:
    return YAML(typ="safe").load(folder / "dvc.lock")["stages"][address]


if __name__ == "__main__":
    launch(main)
