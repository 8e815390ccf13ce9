"""Metrics of a study whose stages were killed and started again, against undisturbed ones.

    python -m benchmarks.killed_study [--stages train tune] [--undisturbed 5] [--jobs 6]
        [--gpu-tasks 4] [--out FILE]

Clones run the reduced study of `benchmarks.kills`: one undisturbed, then at the same time the other
undisturbed ones and one that is killed. There the first process of each kind of stage gets SIGKILL
at a random share of the time that its kind took before, and one that writes resume states not
before it has one. The study is then started again until it ends. `--stages` without any kills none
and runs all at the same time.

On a CPU all have equal metrics. On a GPU sums by atomics differ in each run, so the undisturbed
ones measure what is noise. The killed one fails if a method's mean PSNR is further from theirs
than `--tolerance` and than those of 99 % of such studies would be, by Student's distribution.
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
from statistics import fmean, stdev
from typing import IO

from scipy.stats import t as student

from benchmarks.demo_walltime import environment, prepare
from benchmarks.full_study import Sampler, shared_gpus, stage_of, stage_processes
from benchmarks.gpu_metrics import Difference, differences, means, table
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
_TOLERANCE_DB, _LEVEL = 0.1, 0.99
_POLL_S, _MOST_STARTS = 0.02, 30


@dataclass(frozen=True)
class Kill:
    """One kill: of which stage, how long after its start, and whether it had saved a state."""

    stage: str
    after_s: float
    had_state: bool


def main() -> None:
    """Run the clones and print how their metrics differ; exit code 1 if by more than noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="*", choices=STATES, default=list(STATES))
    parser.add_argument("--undisturbed", type=int, default=5, help="runs without a kill, 2 or more")
    parser.add_argument("--jobs", type=int, default=2, help="stages at once in a clone")
    parser.add_argument("--gpu-tasks", type=int, default=1, help="stages at once on each GPU")
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument("--tolerance", type=float, default=_TOLERANCE_DB, help="dB, of a method")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="further params, as `-S`"
    )
    parser.add_argument("--out", type=Path, help="write the differences as JSON as well")
    args = parser.parse_args()
    if args.undisturbed < 2:
        parser.error("--undisturbed: noise takes two runs or more")

    import torch

    device = device_name("cuda" if torch.cuda.is_available() else "cpu")
    env = environment() | shared_gpus(args.gpu_tasks, args.jobs)
    words = [sys.executable, "-m", "stages.repro", "--jobs", str(args.jobs), "decide"]
    with tempfile.TemporaryDirectory(prefix="splatfix-killed-") as scratch:
        first, *others = (Path(scratch, f"undisturbed-{k}") for k in range(args.undisturbed))
        killed = Path(scratch, "killed")
        prepare(first, [*_SETTINGS, *args.set])
        for folder in (*others, killed):
            shutil.copytree(first, folder)
        waits = times_of_kills(first, words, env, args) if args.stages else {}
        with ThreadPoolExecutor(len(others) + 1) as pool:
            rest = others if waits else [first, *others]
            beside = [pool.submit(undisturbed, folder, words, env) for folder in rest]
            kills = kill_each(killed, words, env, waits) if waits else []
            for one in beside:
                one.result()
        noise = [list(differences(one / "metrics", first / "metrics")) for one in others]
        rows = list(differences(killed / "metrics", first / "metrics"))
    for number, among in enumerate(noise, 1):
        print(f"undisturbed run {number} less the first\n{table(among)}")
    found = spreads([psnr_of(among) for among in noise])
    for method, (_, spread) in found.items():
        least = max(args.tolerance if spread else 0.0, wide(args.undisturbed, len(found)) * spread)
        print(
            f"{method}: {spread:.3f} dB standard deviation of {args.undisturbed} runs, "
            f"beyond noise are {least:.2f} dB"
        )
    missed = sorted(set(args.stages) - {kill.stage for kill in kills})
    if missed:
        print(f"ended before they were killed: {', '.join(missed)}")
    far = beyond_noise(psnr_of(rows), found, args.undisturbed, args.tolerance)
    if args.stages:
        print(f"the killed study less the first\n{table(rows)}")
        print(f"{device}; beyond noise and {args.tolerance} dB: {far or 'none'}")
    if args.out:
        facts = {"device": device, "tolerance_db": args.tolerance, "seed": args.seed}
        facts |= {"kills": [asdict(kill) for kill in kills], "killed": means(rows)}
        write_json(args.out, facts | {"noise": [means(among) for among in noise]})
    sys.exit(bool(far or missed))


def times_of_kills(
    first: Path, words: Sequence[str], env: Mapping[str, str], args: argparse.Namespace
) -> dict[str, float]:
    """Run a study to its end; seconds after which each kind of its stages is to be killed."""
    with Sampler() as sampler:
        undisturbed(first, words, env)
    whole_s = {row.stage: row.wall_s / row.count for row in sampler.rows()}
    shown = ", ".join(f"{one} {seconds:.1f} s" for one, seconds in whole_s.items())
    print(f"undisturbed: {shown}", flush=True)
    rng = random.Random(args.seed)
    return {one: whole_s[one] * rng.uniform(0.3, 0.7) for one in args.stages}


def psnr_of(rows: Sequence[Difference]) -> dict[str, float]:
    """Mean PSNR over scenes of each method, dB."""
    return {method: values["psnr"] for method, values in means(rows).items()}


def spreads(others: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over undisturbed runs, by method, of all less the first.

    >>> spreads([{"none": 0.2}])["none"]
    (0.1, 0.1414213562373095)
    """
    runs = {method: [0.0, *(one[method] for one in others)] for method in others[0]}
    return {method: (fmean(values), stdev(values)) for method, values in runs.items()}


def beyond_noise(
    killed: Mapping[str, float],
    found: Mapping[str, tuple[float, float]],
    runs: int,
    tolerance_db: float,
) -> dict[str, float]:
    """Methods whose mean PSNR is further from that of undisturbed runs than another one's would be.

    >>> beyond_noise({"none": 0.5}, {"none": (0.0, 0.01)}, 3, 0.1)
    {'none': 0.5}
    >>> beyond_noise({"none": 0.5}, {"none": (0.0, 0.1)}, 3, 0.1)
    {}
    >>> beyond_noise({"none": 0.05}, {"none": (0.0, 0.0)}, 3, 0.1)  # a CPU
    {'none': 0.05}
    """
    factor = wide(runs, len(found))
    apart = {method: value - found[method][0] for method, value in killed.items()}
    return {
        method: round(value, 3)
        for method, value in apart.items()
        if abs(value) > max(tolerance_db if found[method][1] else 0.0, factor * found[method][1])
    }


def wide(runs: int, methods: int) -> float:
    """Standard deviations that another run may be from the mean of so many; all methods count."""
    level = 1 - (1 - _LEVEL) / methods
    return float(student.ppf((1 + level) / 2, runs - 1)) * (1 + 1 / runs) ** 0.5


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
