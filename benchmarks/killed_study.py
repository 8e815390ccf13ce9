"""Metrics of a study whose stages were killed and started again, against undisturbed ones.

    python -m benchmarks.killed_study [--stages train tune] [--killed 1] [--undisturbed 5]
        [--jobs 6] [--gpu-tasks 4] [--out FILE]

Clones run the reduced study of `benchmarks.kills`: one undisturbed, then at the same time the other
undisturbed ones and those that are killed. There the first process of each kind of stage gets
SIGKILL at a random share of the time that its kind took before, and one that writes resume states
not before it has one. The study is then started again until it ends. `--stages` without any kills
none and runs all at the same time.

On a CPU all have equal metrics. On a GPU sums by atomics differ in each run, so the undisturbed
ones measure what is noise. A method fails if its mean PSNR, in all killed runs or in one of them,
is further from theirs than `--tolerance` and than in 99 % of such comparisons by noise alone, by
Student's distribution.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import IO

from scipy.stats import t as student

from benchmarks.command_line import launch
from benchmarks.demo_walltime import environment, prepare
from benchmarks.full_study import END_S, Sampler, command_of, shared_gpus, stage_of, stage_processes
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


@dataclass(frozen=True)
class Compared:
    """A method's mean PSNR in killed runs less that of undisturbed ones, beside what is noise."""

    apart_db: float  # of all killed runs
    least_db: float  # more is beyond noise
    furthest_db: float  # of the killed run that is furthest
    furthest_least_db: float
    spread_db: float  # standard deviation of an undisturbed run

    @property
    def is_far(self) -> bool:
        """Whether noise alone would not make it."""
        all_far = abs(self.apart_db) > self.least_db
        return all_far or abs(self.furthest_db) > self.furthest_least_db

    def __str__(self) -> str:
        return (
            f"{self.apart_db:+.4f} dB, beyond noise are {self.least_db:.3f}; the furthest run "
            f"{self.furthest_db:+.4f}, {self.furthest_least_db:.3f}; "
            f"standard deviation {self.spread_db:.4f}"
        )


def main() -> None:
    """Run the clones and print how their metrics differ; exit code 1 if by more than noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="*", choices=STATES, default=list(STATES))
    parser.add_argument("--killed", type=int, default=1, help="runs with kills")
    parser.add_argument("--undisturbed", type=int, default=5, help="runs without a kill, 2 or more")
    parser.add_argument("--jobs", type=int, default=2, help="stages at once in a clone")
    parser.add_argument("--gpu-tasks", type=int, default=1, help="stages at once on each GPU")
    parser.add_argument("--seed", type=int, default=0, help="of the random times of kills")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=_TOLERANCE_DB,
        help="difference of a method's mean PSNR that counts as none, dB",
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="further params, as `-S`"
    )
    parser.add_argument("--out", type=Path, help="write the differences as JSON as well")
    args = parser.parse_args()
    if args.undisturbed < 2:
        parser.error("--undisturbed: noise takes two runs or more")
    if args.killed < 1:
        parser.error("--killed: one run or more; `--stages` without any kills none")

    import torch

    device = device_name("cuda" if torch.cuda.is_available() else "cpu")
    whole, ended, kills = measured(args)
    for name, runs in (("undisturbed", whole), ("killed", ended)):
        for number, rows in enumerate(runs, 1):
            print(f"{name} run {number} less the first undisturbed\n{table(rows)}")
    calm = [dict.fromkeys(psnr_of(whole[0]), 0.0), *map(psnr_of, whole)]
    found = compare([psnr_of(rows) for rows in ended], calm, args.tolerance)
    print(f"{len(ended)} killed runs less {len(calm)} undisturbed ones")
    for method, one in found.items():
        print(f"{method:16}{one}")
    missed = {one for run in kills for one in {*args.stages} - {kill.stage for kill in run}}
    if missed:
        print(f"ended before they were killed: {', '.join(sorted(missed))}")
    far = sorted(method for method, one in found.items() if one.is_far)
    if args.stages:
        print(f"{device}; methods beyond noise and {args.tolerance} dB: {', '.join(far) or '-'}")
    if args.out:
        facts = {"device": device, "tolerance_db": args.tolerance, "seed": args.seed}
        facts |= {"kills": [[asdict(kill) for kill in run] for run in kills]}
        facts |= {"compared": {method: asdict(one) for method, one in found.items()}}
        facts |= {"beyond_noise": far}
        facts |= {"killed": list(map(means, ended)), "undisturbed": list(map(means, whole))}
        write_json(args.out, facts)
    sys.exit(bool(far or missed))


def measured(
    args: argparse.Namespace,
) -> tuple[list[list[Difference]], list[list[Difference]], list[list[Kill]]]:
    """Run all clones. The metrics of undisturbed and of killed ones, less the first, and kills."""
    env = environment() | shared_gpus(args.gpu_tasks, args.jobs)
    words = [sys.executable, "-m", "stages.repro", "--jobs", str(args.jobs), "decide"]
    with tempfile.TemporaryDirectory(prefix="splatfix-killed-") as scratch:
        first, *others = (Path(scratch, f"undisturbed-{k}") for k in range(args.undisturbed))
        torn = [Path(scratch, f"killed-{k}") for k in range(args.killed if args.stages else 0)]
        prepare(first, [*_SETTINGS, *args.set])
        for folder in (*others, *torn):
            shutil.copytree(first, folder)
        stop = threading.Event()
        usual_s = times_of_stages(first, words, env, stop) if args.stages else {}
        with ThreadPoolExecutor(len(others) + len(torn) + 1) as pool:
            rest = others if usual_s else [first, *others]
            beside = [pool.submit(undisturbed, folder, words, env, stop) for folder in rest]
            killed = [
                pool.submit(
                    kill_each, folder, words, env, times_of_kills(usual_s, args, number), stop
                )
                for number, folder in enumerate(torn)
            ]
            try:
                kills = [one.result() for one in killed]
                for one in beside:
                    one.result()
            except BaseException:
                stop.set()
                raise
        whole, ended = (
            [list(differences(one / "metrics", first / "metrics")) for one in folders]
            for folders in (others, torn)
        )
    return whole, ended, kills


def times_of_stages(
    first: Path, words: Sequence[str], env: Mapping[str, str], stop: threading.Event
) -> dict[str, float]:
    """Run a study to its end; mean seconds of each kind of its stages."""
    with Sampler() as sampler:
        undisturbed(first, words, env, stop)
    whole_s = {row.stage: row.wall_s / row.count for row in sampler.rows()}
    shown = ", ".join(f"{one} {seconds:.1f} s" for one, seconds in whole_s.items())
    print(f"undisturbed: {shown}", flush=True)
    return whole_s


def times_of_kills(
    usual_s: Mapping[str, float], args: argparse.Namespace, number: int
) -> dict[str, float]:
    """Seconds after which each kind of stage is to be killed in the run of that number."""
    rng = random.Random(args.seed + number)
    return {one: usual_s[one] * rng.uniform(0.3, 0.7) for one in args.stages}


def psnr_of(rows: Sequence[Difference]) -> dict[str, float]:
    """Mean PSNR over scenes of each method, dB."""
    return {method: values["psnr"] for method, values in means(rows).items()}


def compare(
    killed: Sequence[Mapping[str, float]],
    undisturbed: Sequence[Mapping[str, float]],
    tolerance_db: float,
) -> dict[str, Compared]:
    """Killed runs less undisturbed ones, by method, beside what noise alone would make of them.

    Args:
        killed: mean PSNR by method of each run, dB. Their spread is no noise: a run that lost its
            state would hide in it. Without any, limits are those of one.
        undisturbed: the same of two runs or more.
        tolerance_db: less is no difference, unless undisturbed runs are equal.

    >>> noise = [{"none": -0.01}, {"none": 0.0}, {"none": 0.01}]
    >>> print(compare([{"none": 0.5}], noise, 0.1)["none"])
    +0.5000 dB, beyond noise are 0.115; the furthest run +0.5000, 0.115; standard deviation 0.0100
    >>> compare([{"none": 0.0004}], [{"none": 0.0}] * 2, 0.1)["none"].is_far  # a CPU
    True
    """
    found = {}
    for method in undisturbed[0]:
        calm, torn = ([one[method] for one in runs] for runs in (undisturbed, killed))
        centre, spread = fmean(calm), stdev(calm)
        apart = [value - centre for value in torn] or [0.0]

        def least(count: int, comparisons: int, spread: float = spread) -> float:
            """Of the mean of so many runs, where all comparisons count."""
            share = (1 - _LEVEL) / comparisons
            factor = float(student.ppf(1 - share / 2, len(undisturbed) - 1))
            noise = factor * spread * (1 / count + 1 / len(undisturbed)) ** 0.5
            return max(tolerance_db, noise) if spread else 0.0

        found[method] = Compared(
            fmean(apart),
            least(len(apart), len(undisturbed[0])),
            max(apart, key=abs),
            least(1, len(undisturbed[0]) * len(apart)),
            spread,
        )
    return found


def undisturbed(
    folder: Path, words: Sequence[str], env: Mapping[str, str], stop: threading.Event
) -> None:
    """Run a study to its end. Raises SystemExit with what it said if it fails."""
    with _started(folder, words, env) as (study, log):
        while study.poll() is None and not stop.is_set():
            time.sleep(_POLL_S)
        if not stop.is_set():
            _check(study.returncode, log)


def kill_each(
    folder: Path,
    words: Sequence[str],
    env: Mapping[str, str],
    waits: Mapping[str, float],
    stop: threading.Event,
) -> list[Kill]:
    """Run a study again and again to its end; each kind of stage is killed once.

    Args:
        folder: the clone.
        words: the command.
        env: its environment.
        waits: seconds after the start of a stage at which it is killed, by kind.
        stop: set when the study is to be stopped, and not to be started again.

    Raises SystemExit if the study fails without a kill.
    """
    left, kills = dict(waits), []
    for _ in range(_MOST_STARTS):
        before, seen = len(kills), dict[int, float]()
        with _started(folder, words, env) as (study, log):
            while study.poll() is None and not stop.is_set():
                kills += _kill_due(folder, study.pid, seen, left)
                time.sleep(_POLL_S)
            if stop.is_set() or not study.returncode:
                return kills
            if len(kills) == before:
                _check(study.returncode, log)
    sys.exit(f"not at its end after {_MOST_STARTS} starts")


def _kill_due(
    folder: Path, study: int, seen: dict[int, float], left: dict[str, float]
) -> Iterator[Kill]:
    """Kill the stages that are due and take their kinds from `left`."""
    now = time.monotonic()
    for process in stage_processes(study):
        began = seen.setdefault(process, now)
        kind = stage_of(command_of(process))
        if kind not in left or now - began <= left[kind]:
            continue
        place = STATES[kind]
        wall_began = time.time() - (now - began)  # by the clock of files
        has_state = place is not None and _newest(folder / ".work" / place) > wall_began
        if place is not None and not has_state:
            continue
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:  # it has ended meanwhile
            continue
        del left[kind]
        yield Kill(kind, round(now - began, 2), has_state)
        state = "with a state" if has_state else "without a state"
        print(f"{folder.name}: killed {kind:12} after {now - began:5.1f} s, {state}", flush=True)


def _newest(place: Path) -> float:
    """When the last resume state below a folder was written; 0 without any.

    A training that ends meanwhile removes its state and folders.
    """
    times = [0.0]
    for folder, _, names in os.walk(place):
        if STATE in names:
            with suppress(OSError):
                times.append(os.path.getmtime(os.path.join(folder, STATE)))
    return max(times)


@contextmanager
def _started(
    folder: Path, words: Sequence[str], env: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[str]]]:
    """Start a study, and stop it at the end of the block; its log is beside the clone."""
    with (folder.parent / f"{folder.name}.log").open("a+") as log:
        study = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            yield study, log
        finally:
            study.terminate()
            try:
                study.wait(END_S)
            except subprocess.TimeoutExpired:
                study.kill()
                study.wait()


def _check(code: int, log: IO[str]) -> None:
    if code:
        log.seek(0)
        sys.exit(f"{log.read()}\nended with exit code {code}")


if __name__ == "__main__":
    launch(main)
