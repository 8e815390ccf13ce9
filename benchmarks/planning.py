"""Planning and recording of this study at any number of scenes, without running any stage.

    python -m benchmarks.planning [--scenes 7 100 1000] [--code FOLDER] [--out FILE]

The study is that of params.yaml with more scenes of the embedded kind; the outs of every stage are
one small file each. `--code` times the commands of another checkout on the same projects as well.
Jobs are sent to a SLURM on this machine whose nodes take none, if its daemons are installed.
Seconds are of CPU, children included; memory is the peak of one process. A command that has used
`--limit` seconds of CPU is ended, and has no value.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML

from benchmarks.command_line import launch
from benchmarks.demo_walltime import cluster, missing_daemons
from stages.run.files import write_json

if TYPE_CHECKING:
    from stages.graph.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    *("dvc.yaml", "params.yaml", "names_are_one_level.yaml", "requirements.lock"),
    *(".dvcignore", ".gitignore"),
)
# What stages read within another one's folder.
SUBSETS = ("monocular", "iphone", "stereo", "lightfield", "iphone_eval")
# Longest acceptable CPU seconds, by number of scenes.
TARGETS = {
    100: {"plan": 10, "submit --dry-run": 6, "record all": 60},
    1000: {"plan": 90, "submit --dry-run": 60},
}
RECORD = """
import sys, time
from pathlib import Path
from benchmarks.planning import fill
from stages.graph.pipeline import Pipeline
pipeline = Pipeline(Path.cwd())
share, *addresses = sys.argv[1:]
planned = list(pipeline.plan()) if not addresses else []
addresses += planned[: round(float(share) * len(planned))]
for address in addresses:
    if pipeline.begin(address) is not None:
        fill(pipeline, address)
        pipeline.finish(address)
began = time.process_time()
pipeline.record()
print(len(planned), len(addresses), time.process_time() - began)
"""
PLAN = [sys.executable, "-m", "stages.plan"]
CHECK = [sys.executable, "-m", "stages.check"]
SUBMIT = [sys.executable, "-m", "stages.submit"]
REPRO = [sys.executable, "-m", "dvc", "repro"]
STATUS = [sys.executable, "-m", "dvc", "status"]
# DVC's own, whose time grows with the square of the stages.
LIMITED = ("dvc status", "dvc repro, nothing stale")


def main() -> None:
    """Print a row per command, number of scenes and checkout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, nargs="+", default=[7, 100, 1000])
    parser.add_argument("--code", type=Path, help="a checkout whose commands are timed as well")
    parser.add_argument("--only", nargs="*", default=[], help="the commands to time; default: all")
    parser.add_argument(
        "--recorded", type=float, default=1, help="share of stages with results (default: all)"
    )
    parser.add_argument("--limit", type=int, default=600, help="CPU seconds of DVC's own commands")
    parser.add_argument("--out", type=Path, help="write the rows as JSON, after each row")
    args = parser.parse_args()

    rows, processor = [], device()
    print(f"{'scenes':>6} {'stages':>6}  {'command':24}{'CPU s':>9}{'wall s':>9}{'MiB':>7}  target")
    for scenes in args.scenes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "project")
            write_project(folder, scenes)
            for row in timed(folder, scenes, args):
                rows.append(row)
                value = f"> {args.limit}" if row["value"] is None else f"{row['value']:.1f}"
                print(
                    f"{scenes:6} {row['stages']:6}  {row['name']:24}{value:>9}"
                    f"{row['wall_s']:9.1f}{row['peak_mib']:7.0f}  {row['target'] or '-'}",
                    flush=True,
                )
                if args.out:
                    write_json(args.out, {"rows": [one | {"device": processor} for one in rows]})


def device() -> str:
    """This processor, named by a process whose memory does not count as a command's."""
    words = "from benchmarks.machine import processor; print(processor())"
    return subprocess.run(
        [sys.executable, "-c", words], env=environment(), capture_output=True, text=True, check=True
    ).stdout.strip()


def write_project(folder: Path, scenes: int) -> None:
    """The repository with `scenes` scenes in its study, without data."""
    folder.mkdir(parents=True)
    for name in COPIED:
        shutil.copy(ROOT / name, folder / name)
    use_code(folder, ROOT)
    yaml = YAML()
    yaml.preserve_quotes = True
    params = yaml.load(folder / "params.yaml")
    add_scenes(params, scenes)
    yaml.dump(params, folder / "params.yaml")
    for words in (("git", "init", "-q"), (sys.executable, "-m", "dvc", "init", "-q")):
        subprocess.run(words, cwd=folder, check=True, env=environment())


def add_scenes(params: dict, scenes: int) -> None:
    """More scenes in the study: of ten, four to tune on, one to validate, five downstream."""
    study, catalogue = params["study"], params["scenes"]
    entry = next(iter(catalogue.values()))
    for number in range(len(study["scenes"]), scenes):
        name = f"hi4d_pair{100 + number}_walk"
        catalogue[name] = deepcopy(entry)
        params["demo"]["scenes"].append(name)
        role = (
            "tuning" if number % 10 < 4 else "internal_eval" if number % 10 == 4 else "downstream"
        )
        lists = ["scenes", f"{role}_scenes"]
        lists += [] if role == "tuning" else ["evaluated_scenes"]
        lists += ["reserved_scenes"] if role == "downstream" else []
        for key in lists:
            study[key].append(name)


def use_code(folder: Path, checkout: Path) -> None:
    """Give the project the code of a checkout."""
    shutil.rmtree(folder / "stages", ignore_errors=True)
    shutil.copytree(
        checkout / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__")
    )


def timed(folder: Path, scenes: int, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Rows of each command: those that find everything recorded, then those after an edit."""
    train = next(iter(YAML(typ="safe").load(folder / "params.yaml")["study"]["scenes"]))
    record = [sys.executable, "-c", RECORD, str(args.recorded)]
    whole = measure("record all" if args.recorded == 1 else "record", record, folder)
    stages, recorded, write_s = whole.pop("output").split()[-3:]
    common = {"stages": int(stages), "recorded": int(recorded), "scenes": scenes}
    yield row(whole, common)
    yield row({**whole, "name": "of these, dvc.lock", "value": float(write_s), "wall_s": 0}, common)
    checkouts = {"": ROOT, **({"before: ": args.code} if args.code else {})}

    def rows(
        steps: Mapping[str, Sequence[str]], variables: Mapping[str, str]
    ) -> Iterator[dict[str, object]]:
        for name, words in steps.items():
            for label, checkout in checkouts.items():
                if (not args.only or name in args.only) and (not label or name not in LIMITED):
                    use_code(folder, checkout)
                    limit = args.limit if name in LIMITED else 0
                    yield row(measure(label + name, words, folder, variables, limit), common)

    steps = {"check": CHECK, "dvc status": STATUS}
    if args.recorded == 1:  # others would run stages
        steps |= {"plan, nothing stale": PLAN, "submit, nothing stale": [*SUBMIT, "--local"]}
        steps |= {"dvc repro, nothing stale": REPRO}
    yield from rows(steps, {})
    with edited(folder):
        steps = {"plan": PLAN, "submit --dry-run": [*SUBMIT, "--dry-run"]}
        yield from rows(steps, {})
        if not missing_daemons():
            with cluster(8) as variables:
                drain = "scontrol update nodename=ALL state=drain reason=benchmark"
                subprocess.run(drain.split(), env={**os.environ, **variables}, check=True)
                steps = {"submit": SUBMIT, "submit status": [*SUBMIT, "status"]}
                yield from rows(steps, variables)
        yield from rows({"record one": [*record, f"train@{train}"]}, {})


def row(measured: dict, common: dict) -> dict[str, object]:
    """A row of results."""
    target = TARGETS.get(common["scenes"], {}).get(measured["name"])
    rest = {key: value for key, value in measured.items() if key != "output"}
    return {**common, **rest, "unit": "s", "anchor": None, "target": target}


@contextmanager
def edited(folder: Path) -> Iterator[None]:
    """Another number of training steps, so that most stages are stale."""
    path = folder / "params.yaml"
    before = path.read_text()
    head, found, tail = before.partition("\ntrain:\n")
    assert found, "params.yaml has no section train"
    path.write_text(head + found + tail.replace("max_steps: ", "max_steps: 1", 1))
    yield
    path.write_text(before)


def measure(
    name: str,
    words: Sequence[str],
    folder: Path,
    variables: Mapping[str, str] | None = None,
    limit_s: int = 0,
) -> dict:
    """CPU and wall-clock seconds, and peak memory, of a command and its children.

    The value is None for a command that was ended after `limit_s` seconds of CPU; 0 sets no limit.
    """

    def limited() -> None:
        if limit_s:
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))

    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        child = subprocess.Popen(
            words,
            cwd=folder,
            env={**environment(), **(variables or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=limited,
        )
        _, status, used = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - began
        output.seek(0)
        text = output.read()
    is_over = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
    assert status == 0 or (is_over and limit_s), f"{words} ended with {status}\n{text}"
    return {
        "name": name,
        "value": None if status else round(used.ru_utime + used.ru_stime, 2),
        "wall_s": round(wall_s, 2),
        "peak_mib": round(used.ru_maxrss / 1024),
        "output": text,
    }


def fill(pipeline: "Pipeline", address: str) -> None:
    """Write small outs of a stage, as its command would, with what other stages read within."""
    for out in (Path(out.fs_path) for out in pipeline._stage(address).outs):
        inside = [out / name for name in SUBSETS if out.name == "subsets"]
        for path in [out, *inside]:
            is_file = path.suffix in (".json", ".tsv", ".txt", ".md", ".npz", ".html")
            if not is_file and path.name != ".prep_complete":
                path /= "file.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}\n" if path.suffix == ".json" else f"{address} {path.name}\n")


def environment() -> dict[str, str]:
    """This process's variables, with this repository's benchmarks and this Python's programs."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "SPLATFIX_WORK": ".work"}


if __name__ == "__main__":
    launch(main)
