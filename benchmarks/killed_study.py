"""Metrics of a study whose stages were killed and started again, against undisturbed ones.

    python -m benchmarks.killed_study [--stages train tune] [--jobs 6] [--gpu-tasks 4] [--out FILE]

Three clones run the reduced study of `benchmarks.kills`: one undisturbed, then at the same time
another undisturbed one and one that is killed. There the first process of each kind of stage gets
SIGKILL at a random share of the time that its kind took before, and one that writes resume states
not before it has one. The study is then started again until it ends.

On a CPU all three have equal metrics. On a GPU sums by atomics differ in each run, so the two
undisturbed runs measure what is noise, and the killed one may differ by `--tolerance`.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from benchmarks.demo_walltime import environment, prepare
from benchmarks.full_study import Sampler, shared_gpus, stage_of, stage_processes
from benchmarks.gpu_metrics import beyond, differences, means, table
from benchmarks.kills import REDUCED
from benchmarks.machine import device_name
from stages.run.artefacts import STATE
from stages.run.files import write_json

# Where each kind keeps its resume states below .work/; None for those that start anew.
STATES = {
    "train": "train",
    "pairs": None,
    "novel_views": None,
    "tune": "tune",
    "fixed_views": "distill",
    "evaluate": None,
}
_SETTINGS = (
    *REDUCED,
    "train.max_steps=300",
    "train.save_steps=[200]",
    "pairs.steps=[200]",
    "runtime.train.checkpoint_every=20",
    "distill.steps=20",
)
_TOLERANCE_DB = 0.1
_POLL_S, _MOST_STARTS = 0.02, 30


@dataclass(frozen=True)
class Kill:
    """One kill: of which stage, how long after its start, and whether it had saved a state."""

    stage: str
    after_s: float
    had_state: bool


def main() -> None:
    """Run the three clones and print how their metrics differ; exit code 1 beyond the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument("--jobs", type=int, default=2, help="stages at once in a clone")
    parser.add_argument("--gpu-tasks", type=int, default=1, help="stages at once on each GPU")
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument("--tolerance", type=float, default=_TOLERANCE_DB, help="dB, of a method")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="further params, as `-S`"
    )
    parser.add_argument("--out", type=Path, help="write the differences as JSON as well")
    args = parser.parse_args()

    import torch

    device = device_name("cuda" if torch.cuda.is_available() else "cpu")
    env = environment() | shared_gpus(args.gpu_tasks, args.jobs)
    words = [sys.executable, "-m", "stages.repro", "--jobs", str(args.jobs), "decide"]
    with tempfile.TemporaryDirectory(prefix="splatfix-killed-") as scratch:
        first, again, killed = (Path(scratch, name) for name in ("first", "again", "killed"))
        prepare(first, [*_SETTINGS, *args.set])
        for folder in (again, killed):
            shutil.copytree(first, folder)
        with Sampler() as sampler:
            undisturbed(first, words, env)
        whole_s = {row.stage: row.wall_s / row.count for row in sampler.rows()}
        print(
            f"undisturbed: {', '.join(f'{one} {s:.1f} s' for one, s in whole_s.items())}",
            flush=True,
        )
        rng = random.Random(args.seed)
        waits = {one: whole_s[one] * rng.uniform(0.3, 0.7) for one in args.stages}
        with ThreadPoolExecutor() as pool:
            beside = pool.submit(undisturbed, again, words, env)
            kills = kill_each(killed, words, env, waits)
            beside.result()
        noise = list(differences(again / "metrics", first / "metrics"))
        rows = list(differences(killed / "metrics", first / "metrics"))
    missed = sorted(set(args.stages) - {kill.stage for kill in kills})
    if missed:
        print(f"ended before they were killed: {', '.join(missed)}")
    print(f"the killed study less the first\n{table(rows)}")
    print(f"another undisturbed one less the first, which is noise\n{table(noise)}")
    far = beyond(rows, args.tolerance)
    print(f"{device}; tolerance {args.tolerance} dB of a method's mean; beyond it: {far or 'none'}")
    if args.out:
        facts = {"device": device, "tolerance_db": args.tolerance, "seed": args.seed}
        facts |= {"kills": [asdict(kill) for kill in kills]}
        facts |= {"killed": means(rows), "noise": means(noise)}
        write_json(args.out, facts)
    sys.exit(bool(far or missed))


def undisturbed(folder: Path, words: Sequence[str], env: Mapping[str, str]) -> None:
    """Run a study to its end. Raises SystemExit with what it said if it fails."""
    with (folder.parent / f"{folder.name}.log").open("w+") as log:
        _check(_start(folder, words, env, log).wait(), log)


def kill_each(
    folder: Path, words: Sequence[str], env: Mapping[str, str], waits: Mapping[str, float]
) -> list[Kill]:
    """Run a study again and again to its end; each kind of stage is killed once.

    Args:
        folder: the clone.
        words: the command.
        env: its environment.
        waits: seconds after the start of a stage at which it is killed, by kind.

    Raises SystemExit if the study fails without a kill.
    """
    left, kills = dict(waits), []
    with (folder.parent / f"{folder.name}.log").open("w+") as log:
        for _ in range(_MOST_STARTS):
            study, before = _start(folder, words, env, log), len(kills)
            seen: dict[int, float] = {}
            while study.poll() is None:
                kills += _kill_due(folder, study.pid, seen, left)
                time.sleep(_POLL_S)
            if not study.returncode:
                break
            if len(kills) == before:
                _check(study.returncode, log)
        else:
            sys.exit(f"not at its end after {_MOST_STARTS} starts")
    return kills


def _kill_due(
    folder: Path, study: int, seen: dict[int, float], left: dict[str, float]
) -> list[Kill]:
    """Kill the stages that are due and take their kinds from `left`."""
    kills, now = [], time.monotonic()
    for process in stage_processes(study):
        began = seen.setdefault(process, now)
        kind = stage_of(_words(process)) or ""
        place = STATES.get(kind)
        # The time since the process was seen; files have the wall clock's.
        has_state = place is not None and _newest(folder / ".work" / place) > time.time() - (
            now - began
        )
        due = kind in left and now - began > left[kind] and (has_state or place is None)
        if due:
            os.kill(process, signal.SIGKILL)
            del left[kind]
            kills.append(Kill(kind, round(now - began, 2), has_state))
            state = "with a state" if has_state else "without a state"
            print(f"killed {kind:12} after {now - began:5.1f} s, {state}", flush=True)
    return kills


def _newest(place: Path) -> float:
    """When the last resume state below a folder was written; 0 without any."""
    times = [0.0]
    for path in place.rglob(STATE):
        try:
            times.append(path.stat().st_mtime)
        except OSError:  # a finished training removes its state
            continue
    return max(times)


def _words(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _start(
    folder: Path, words: Sequence[str], env: Mapping[str, str], log: IO[str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log)


def _check(code: int, log: IO[str]) -> None:
    if code:
        log.seek(0)
        sys.exit(f"{log.read()}\nended with exit code {code}")


if __name__ == "__main__":
    main()
