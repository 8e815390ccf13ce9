"""Time of planning: `submit --dry-run` of a large graph, beside DVC's own commands.

    python -m benchmarks.submit_overhead [--scenes 100] [--stages 6] [--out FILE]

The graph is a chain of stages for each scene and one stage that reads all of them. Every stage is
stale in the first row; in the second all have been recorded and the first of each chain is edited.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.command_line import launch
from stages.run.files import write_json

ROOT = Path(__file__).resolve().parents[1]
TARGET_S = 10.0


def main() -> None:
    """Print one table: seconds of each command on the two graphs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100, help="chains in the graph")
    parser.add_argument("--stages", type=int, default=6, help="stages of a chain")
    parser.add_argument(
        "--repeats", type=int, default=3, help="the minimum of this many runs is reported"
    )
    parser.add_argument("--out", type=Path, help="write the rows as JSON as well")
    args = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_project(folder, args.scenes, args.stages)
        rows.append({"graph": "all stale", **timed(folder, args.repeats)})
        record_all(folder, args.scenes, args.stages)
        (folder / "step0.py").write_text("# edited\n")
        rows.append({"graph": "recorded, first stages edited", **timed(folder, args.repeats)})
    tasks = args.scenes * args.stages + 1
    print(f"{tasks} tasks in {args.stages + 1} arrays; best of {args.repeats}")
    print("seconds, and of these seconds of CPU")
    columns = list(rows[0])
    for row in (dict(zip(columns, columns, strict=True)), *rows):
        print("  ".join(f"{row[name]:>{max(len(name), 16)}}" for name in columns))
    worst = max(float(row["submit --dry-run"].split()[0]) for row in rows)
    print(f"target {TARGET_S:.0f} s: {'reached' if worst <= TARGET_S else 'missed'}")
    if args.out:
        write_json(args.out, {"scenes": args.scenes, "stages": args.stages, "rows": rows})


def write_project(folder: Path, scenes: int, stages: int) -> None:
    """A DVC project of chains; `submit` reads the section `slurm` of this repository's params."""
    slurm = YAML(typ="safe").load(ROOT / "params.yaml")["slurm"]
    names = [f"scene{number:03}" for number in range(scenes)]
    yaml = YAML()
    yaml.dump(
        {"names": names, "slurm": {**slurm, "stages": {}, "group": {}, "pack": {}}},
        folder / "params.yaml",
    )
    graph = {}
    for step in range(stages):
        (folder / f"step{step}.py").write_text("")
        deps = [f"step{step}.py", *([f"data/{step - 1}/${{item.name}}"] if step else [])]
        graph[f"step{step}"] = {
            "matrix": {"name": "${names}"},
            "cmd": f"python step{step}.py ${{item.name}}",
            "deps": deps,
            "outs": [f"data/{step}/${{item.name}}"],
        }
    last = {"cmd": "python last.py", "deps": [f"data/{stages - 1}"], "outs": ["data/last"]}
    yaml.dump({"stages": {**graph, "last": last}}, folder / "dvc.yaml")
    (folder / ".gitignore").write_text("/data/\n/.work/\n/slurm_logs/\n")
    (folder / ".dvcignore").write_text(".work/\n")
    for words in (("git", "init", "-q"), ("dvc", "init", "-q")):
        subprocess.run(words, cwd=folder, check=True)


def record_all(folder: Path, scenes: int, stages: int) -> None:
    """Write every out and record it in DVC."""
    for step in range(stages):
        (folder / "data" / str(step)).mkdir(parents=True)
        for scene in range(scenes):
            (folder / f"data/{step}/scene{scene:03}").write_text(f"{step} {scene}")
    (folder / "data" / "last").write_text("last")
    subprocess.run(("dvc", "commit", "-q", "-f"), cwd=folder, check=True)


def timed(folder: Path, repeats: int) -> dict[str, str]:
    """`seconds / CPU seconds` of each command, start of Python included."""
    submit = [sys.executable, "-m", "stages.submit", "--dry-run"]
    commands = {
        "submit --dry-run": submit,
        "dvc status": ["dvc", "status"],
        "dvc stage list": ["dvc", "stage", "list", "--name-only"],
    }
    return {name: _best(words, folder, repeats) for name, words in commands.items()}


def _best(words: Sequence[str], folder: Path, repeats: int) -> str:
    runs = []
    for _ in range(repeats):
        began, busy = time.perf_counter(), _cpu_s()
        subprocess.run(words, cwd=folder, env=environment(), check=True, capture_output=True)
        runs.append((time.perf_counter() - began, _cpu_s() - busy))
    return "{:.2f} / {:.2f}".format(*min(runs))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def environment() -> dict[str, str]:
    """This process's variables, with this repository's packages and this Python's programs."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    assert shutil.which("dvc", path=path), "dvc is not installed beside this Python"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    launch(main)
