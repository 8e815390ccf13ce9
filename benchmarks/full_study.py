"""The whole study at a real size, stage by stage: time, GPU, host and disk.

    python -m benchmarks.full_study [--scale 0.05] [--jobs 2] [--minutes 9] [--set KEY=VALUE ...]

A clone with an empty cache runs the study of params.yaml with studies/full.yaml: seven scenes of
eight cameras at 940x1280, 20 timestamps, 7,000 steps, 500 steps of tuning an SD-Turbo with random
weights at 320 px, every method. `--scale` multiplies the pixels of an image and all numbers of
steps and timestamps, for smaller machines; below a half the fixer is the tiny one.

Processes are sampled, so a stage's row holds all that `dvc repro` waits for, its start included.
With `--jobs` above 1 stages overlap, and each counts the GPU's whole load while it runs. A GPU has
one stage at a time unless `--gpu-tasks` says otherwise. A study that fails, or is stopped by
`--minutes` or a signal, has its rows printed all the same.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.command_line import launch
from benchmarks.demo_walltime import ROOT, environment, prepare, set_all
from benchmarks.machine import device_name
from stages.run.files import write_json
from stages.run.process.gpus import gpu_environment, visible_gpus

_SAMPLED_S = 0.2
END_S = 30.0  # in which a study that is stopped saves its states
_BUSY = 0.7  # share of the time from which on a resource is what limits
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Row:
    """What the processes of one kind of stage took."""

    stage: str
    count: int = 0
    wall_s: float = 0.0
    longest_s: float = 0.0
    cpu_s: float = 0.0
    written_gb: float = 0.0
    gpu_loads: list[float] = field(default_factory=list)

    @property
    def gpu_share(self) -> float | None:
        """Mean load of the busiest GPU while the stage ran."""
        return sum(self.gpu_loads) / len(self.gpu_loads) if self.gpu_loads else None

    @property
    def host_share(self) -> float:
        """CPU seconds per second: above 1 with several cores."""
        return self.cpu_s / self.wall_s if self.wall_s else 0.0

    @property
    def limit(self) -> str:
        """What is busy for most of the time."""
        if (self.gpu_share or 0) >= _BUSY:
            return "GPU"
        return "host" if self.host_share >= _BUSY else "waiting, disk"


@dataclass
class _Seen:
    """One process of a stage with its children, as sampled."""

    kind: str
    began: float
    ended: float
    cpu_s: dict[int, float] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    gpu_loads: list[float] = field(default_factory=list)


class Sampler:
    """Samples the processes below this one and the GPUs in a thread, until the block ends."""

    def __init__(self) -> None:
        self.seen: dict[int, _Seen] = {}
        self.loads: list[tuple[float, float]] = []  # time, load of the busiest GPU
        self._latest: dict[str, float] = {}
        self._stop = threading.Event()

    def __enter__(self) -> "Sampler":
        self._gpu = _gpu_loads()
        if self._gpu:
            threading.Thread(target=self._read_gpu, daemon=True).start()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._gpu:
            self._gpu.terminate()
            self._gpu.wait()

    def rows(self) -> list[Row]:
        """One row for each kind of stage, in the order in which they began."""
        rows: dict[str, Row] = {}
        for one in sorted(self.seen.values(), key=lambda one: one.began):
            row = rows.setdefault(one.kind, Row(one.kind))
            seconds = one.ended - one.began
            row.count += 1
            row.wall_s += seconds
            row.longest_s = max(row.longest_s, seconds)
            row.cpu_s += sum(one.cpu_s.values())
            row.written_gb += sum(one.written.values()) / 1e9
            row.gpu_loads += one.gpu_loads
        return list(rows.values())

    def between(self, first: str, last: str) -> tuple[float, float | None]:
        """Seconds from the first process of one stage to the end of another, and the GPU's load.

        Of a study that was stopped before, to the last sample.
        """
        begin = min((one.began for one in self.seen.values() if one.kind == first), default=None)
        if begin is None:
            return 0.0, None
        ends = [one.ended for one in self.seen.values() if one.kind == last]
        end = max(ends or [one.ended for one in self.seen.values()])
        loads = [load for moment, load in self.loads if begin <= moment <= end]
        return end - begin, sum(loads) / len(loads) if loads else None

    def _read_gpu(self) -> None:
        for line in self._gpu.stdout:
            index, _, load = line.partition(",")
            if load.strip().isdigit():
                self._latest[index] = int(load) / 100

    def _sample(self) -> None:
        own = os.getpid()
        while not self._stop.wait(_SAMPLED_S):
            now = time.monotonic()
            load = max(self._latest.values(), default=None)
            if load is not None:
                self.loads.append((now, load))
            for root, processes in stage_processes(own).items():
                if root not in self.seen:
                    kind = stage_of(command_of(root))
                    self.seen[root] = _Seen(kind, now, now)
                one = self.seen[root]
                one.ended = now
                for process in processes:
                    one.cpu_s[process] = _cpu_s(process) or one.cpu_s.get(process, 0.0)
                    one.written[process] = _written(process) or one.written.get(process, 0)
                if load is not None:
                    one.gpu_loads.append(load)


def stage_of(command: Sequence[str]) -> str | None:
    """The stage that a command line runs, or None.

    >>> stage_of(["python", "-m", "stages.train", "--scene", "a"])
    'train'
    >>> stage_of(["python", "-m", "stages.submit"]), stage_of(["sh", "-c", "sleep 1"])
    (None, None)
    """
    for option, name in pairwise(command):
        if option == "-m" and name.startswith("stages."):
            entry = name.removeprefix("stages.")
            return entry if (ROOT / "stages" / f"{entry}.py").is_file() else None
    return None


def stage_processes(ancestor: int) -> dict[int, list[int]]:
    """Processes of stages below one, each with its own descendants, itself included."""
    children = defaultdict(list)
    for process in _processes():
        parent = _stat(process, 1)
        if parent is not None:
            children[int(parent)].append(process)

    def below(process: int) -> Iterator[int]:
        yield process
        for child in children[process]:
            yield from below(child)

    found: dict[int, list[int]] = {}

    def look(process: int) -> None:
        for child in children[process]:
            if stage_of(command_of(child)):
                found[child] = list(below(child))
            else:
                look(child)

    look(ancestor)
    return found


def settings(scale: float) -> list[str]:
    """The study's size as KEY=VALUE."""

    def steps(full: int) -> int:
        return max(2, round(scale * full))

    def side(full: int) -> int:
        return max(full // 5, 4 * round(scale**0.5 * full / 4))

    size = "sd-turbo" if scale >= 0.5 else "tiny"
    scenes = YAML(typ="safe").load(ROOT / "params.yaml")["study"]["scenes"]
    return [
        f"demo.frames={min(20, max(2, round(20 * scale)))}",
        *(f"scenes.{name}.timestamps=0" for name in scenes),  # all of them
        f"demo.width_px={side(940)}",
        f"demo.height_px={side(1280)}",
        f"prepare.height_px={side(1280)}",
        f"train.init_num_pts={max(2000, round(scale * 100_000))}",
        f"train.max_steps={steps(7000)}",
        f"train.eval_steps=[{steps(7000)}]",
        f"train.ply_steps=[{steps(7000)}]",
        f"train.save_steps=[{steps(7000)}]",
        "base.source=random",
        f"base.size={size}",
        f"tune.steps={steps(500)}",
        f"tune.warmup_steps={steps(50)}",
        f"tune.validate_every={steps(250)}",
        f"tune.resolution={max(64, 16 * round(scale**0.5 * 320 / 16))}",
        f"tune.losses.gram_warmup_steps={steps(100)}",
        f"distill.rounds={max(2, round(20 * scale))}",
        f"distill.steps={steps(1500)}",
    ]


def main() -> None:
    """Run the study; print the table and the load between the first and the last use of the GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the real size")
    parser.add_argument("--jobs", type=int, default=1, help="stages at once; 1 is `dvc repro`")
    parser.add_argument("--gpu-tasks", type=int, default=1, help="stages at once on each GPU")
    parser.add_argument("--minutes", type=float, help="stop the study after this time")
    parser.add_argument("--overlay", default="studies/full.yaml", help="values to begin with")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="further params, as `-S`"
    )
    parser.add_argument("--targets", nargs="*", default=["report"], help="stages to end with")
    parser.add_argument("--out", type=Path, help="write the rows as JSON as well")
    args = parser.parse_args()

    import torch

    name = device_name("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(prefix="splatfix-full-") as scratch:
        folder = Path(scratch, "clone")
        prepare(folder, [])
        python = [sys.executable, "-m"]
        subprocess.run([*python, "stages.overlay", args.overlay], cwd=folder, check=True)
        set_all(folder, [*settings(args.scale), *args.set])
        env = environment() | shared_gpus(args.gpu_tasks, args.jobs)
        began = time.monotonic()
        command = [*python, "stages.repro", "--jobs", str(args.jobs), *args.targets]
        with Sampler() as sampler:
            code, why = follow(command, folder, env, args.minutes)
        seconds = time.monotonic() - began
    rows = sampler.rows()
    print(table(rows))
    in_stages, load = sampler.between("train", "evaluate")
    line = (
        f"{seconds:.0f} s in all, {in_stages:.0f} s from the first training to the last evaluation"
    )
    print(f"{line}, GPU busy {_percent(load)} of these; {name}")
    if code:
        print(why or f"the study ended with exit code {code}: its rows to there")
    if args.out:
        facts = {
            "device": name,
            "scale": args.scale,
            "jobs": args.jobs,
            "seconds": round(seconds, 1),
            "complete": not code,
        }
        facts |= {"gpu_share": load, "rows": [_as_dict(row) for row in rows]}
        write_json(args.out, facts)
    sys.exit(code)


def follow(
    command: Sequence[str], folder: Path, env: Mapping[str, str], minutes: float | None
) -> tuple[int, str]:
    """Run a command to its end, or for so long, or to a signal; its exit code, why it was stopped.

    Stopped, it gets SIGTERM, by which stages save their states.
    """
    process = subprocess.Popen(command, cwd=folder, env=env)
    try:
        return process.wait(None if minutes is None else 60 * minutes), ""
    except subprocess.TimeoutExpired:
        why = f"stopped after {minutes:g} minutes: the rows to there"
    except KeyboardInterrupt:
        why = "stopped by a signal: the rows to there"
    process.terminate()
    try:
        return process.wait(END_S) or 1, why
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(), why


def shared_gpus(tasks: int, jobs: int) -> dict[str, str]:
    """The variable by which a local run of `jobs` stages gives each GPU so many at once.

    A run hands out what it names, one entry to a stage; so each GPU is named several times. With
    one job it hands out nothing.
    """
    gpus = visible_gpus()
    return gpu_environment(gpus * tasks) if gpus and min(tasks, jobs) > 1 else {}


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = ["stage              runs   seconds  longest    GPU   CPU/s  written  limited by"]
    lines += [
        f"{row.stage:18}{row.count:5}{row.wall_s:10.1f}{row.longest_s:9.1f}"
        f"{_percent(row.gpu_share):>7}{row.host_share:8.2f}{row.written_gb:6.2f} GB  {row.limit}"
        for row in rows
    ]
    return "\n".join(lines)


def _as_dict(row: Row) -> dict[str, object]:
    names = ("stage", "count", "wall_s", "longest_s", "cpu_s", "written_gb", "gpu_share", "limit")
    values = {name: getattr(row, name) for name in names}
    return {key: round(one, 3) if isinstance(one, float) else one for key, one in values.items()}


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _gpu_loads() -> subprocess.Popen[str] | None:
    """A process that prints `index, load in percent` for every GPU; None without nvidia-smi."""
    query = ["--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    try:
        return subprocess.Popen(["nvidia-smi", *query], stdout=subprocess.PIPE, text=True)
    except OSError:
        return None


def _processes() -> Iterator[int]:
    return (int(one) for one in os.listdir("/proc") if one.isdigit())


def command_of(process: int) -> list[str]:
    """The words of a process; none if it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _stat(process: int, index: int) -> str | None:
    """A field of /proc/<process>/stat, counted from its state."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[index]
    except (OSError, IndexError):
        return None


def _cpu_s(process: int) -> float | None:
    user, system = _stat(process, 11), _stat(process, 12)
    return None if user is None or system is None else (int(user) + int(system)) / _TICK


def _written(process: int) -> int | None:
    try:
        lines = Path(f"/proc/{process}/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


if __name__ == "__main__":
    launch(main)
