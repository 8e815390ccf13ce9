"""Time of the whole study run in three ways, each in its own clone with an empty cache.

    python -m benchmarks.demo_walltime [--ways local slurm] [--set train.max_steps=60] [--out FILE]

`repro` is plain `dvc repro`, `local` is `submit --local --jobs 2`, `slurm` is `submit` on a local
cluster with one node of two cores. All must end with the same dvc.lock.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ruamel.yaml import YAML

from benchmarks.command_line import launch
from stages.run.errors import UserError
from stages.run.files import write_json

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("repro", "local", "slurm")
TARGET = 0.7


def main() -> None:
    """Run each way; print seconds, their ratio to the first way's, and whether results agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="in this order")
    parser.add_argument("--jobs", type=int, default=2, help="tasks at once")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="params to change, as `dvc exp run -S`",
    )
    parser.add_argument("--targets", nargs="*", default=[], help="stages; default: all")
    parser.add_argument("--out", type=Path, help="write the rows as JSON as well")
    args = parser.parse_args()

    rows, locks = [], {}
    for way in args.ways:
        with tempfile.TemporaryDirectory(prefix=f"splatfix-{way}-") as scratch:
            folder = Path(scratch, "clone")
            prepare(folder, args.settings, args.jobs if way == "slurm" else 0)
            began = time.perf_counter()
            told = run(way, folder, args.jobs, args.targets)
            seconds = time.perf_counter() - began
            locks[way] = _parsed(folder / "dvc.lock")["stages"]
        rows.append({"way": way, "seconds": round(seconds, 1)})
        rows[-1]["share"] = round(seconds / rows[0]["seconds"], 3)
        rows[-1]["same_results"] = locks[way] == locks[args.ways[0]]
        line = "{way:8}{seconds:>9.1f} s{share:>8.2f}  same results: {same_results}"
        print(line.format(**rows[-1]), flush=True)
        if not rows[-1]["same_results"]:
            print(told, file=sys.stderr, flush=True)
    if args.out:
        write_json(args.out, {"jobs": args.jobs, "cores": os.cpu_count(), "rows": rows})
    sys.exit(not all(row["same_results"] for row in rows))


def prepare(folder: Path, settings: Sequence[str], jobs: int = 0) -> None:
    """A clone of the working tree without results; with `jobs`, for so many on the small cluster.

    That cluster has no GPU, so then no stage asks for one.
    """
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        is_result = name.startswith("metrics/") and not name.endswith("/.gitkeep")
        if (ROOT / name).is_file() and name != "dvc.lock" and not is_result:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    fitting = []
    if jobs:
        nodes = ["bad1", "gpu2", "h100"]
        fitting = ["slurm.default.cpus=1", "slurm.default.memory=8G"]
        stages = _parsed(folder / "params.yaml")["slurm"]["stages"]
        fitting += [f"slurm.stages.{name}.gpus=0" for name, one in stages.items() if "gpus" in one]
        fitting += [f"slurm.default.exclude=[{','.join(nodes)}]", f"slurm.throttle={jobs}"]
    set_all(folder, [*settings, *fitting])
    for git in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "Begin")):
        identity = ("-c", "user.email=benchmark@localhost", "-c", "user.name=benchmark")
        subprocess.run(("git", *identity, *git), cwd=folder, check=True)


def set_all(folder: Path, settings: Sequence[str]) -> None:
    """Change params of a clone. Raises UserError, without the advice that the parser adds."""
    from stages.graph.pipeline import set_params

    try:
        set_params(folder, settings)
    except UserError as error:
        first, *_ = error.got.splitlines()
        raise UserError("--set", first, hint=error.hint, fix=error.fix) from error


def environment() -> dict[str, str]:
    """The environment of all commands: this interpreter, without variables of an outer DVC."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1"}


def run(way: str, folder: Path, jobs: int, targets: list[str]) -> str:
    """Run the study one way; what was printed, which goes to a log beside the clone."""
    submit = [sys.executable, "-m", "stages.submit"]
    with cluster(jobs) if way == "slurm" else no_cluster() as variables:
        words = {
            "repro": ["dvc", "repro"],
            "local": [*submit, "--local", "--jobs", str(jobs)],
            "slurm": submit,
        }[way]
        env = environment() | variables
        with (folder.parent / "log").open("wb") as log:
            ended = subprocess.run([*words, *targets], cwd=folder, env=env, stdout=log, stderr=log)
        if ended.returncode:
            sys.exit((folder.parent / "log").read_text())
        while way == "slurm" and _queue(env):
            time.sleep(0.5)
        if way == "slurm":
            with (folder.parent / "log").open("ab") as log:
                subprocess.run([*submit, "status"], cwd=folder, env=env, stdout=log, stderr=log)
    return (folder.parent / "log").read_text()


def _parsed(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def _queue(env: dict[str, str]) -> str:
    return subprocess.run(
        ["squeue", "--noheader"], env=env, check=True, capture_output=True, text=True
    ).stdout


def missing_daemons() -> list[str]:
    """What the tests' cluster needs and this machine lacks."""
    return _loopback().missing_programs()


def _loopback() -> ModuleType:
    sys.path.insert(0, str(ROOT / "tests"))
    return import_module("loopback")


@contextmanager
def cluster(cpus: int) -> Iterator[dict[str, str]]:
    """The tests' cluster; yields the variable that selects it."""
    folder = Path(tempfile.mkdtemp(prefix="splatfix-slurm-"))
    folder.chmod(0o755)  # munge wants it open to others
    with _loopback().started(folder, cpus) as running:
        yield {"SLURM_CONF": str(running.conf)}
    shutil.rmtree(folder)


@contextmanager
def no_cluster() -> Iterator[dict[str, str]]:
    """No cluster and no variables."""
    yield {}


if __name__ == "__main__":
    launch(main)
