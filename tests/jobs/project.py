"""A small DVC project whose stages are cheap: made on the spot, run by the real commands."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clean_environment import NEW_REPOSITORY, clean_environment
from ruamel.yaml import YAML

from stages.graph.pipeline import Pipeline
from stages.jobs.config import SlurmConfig
from stages.run.settings.params import Params

# The command in this process: exit code and output of `python -m stages.submit ...`.
Submit = Callable[..., tuple[int, str]]
# DVC's command line in this process, in a folder.
Dvc = Callable[..., tuple[int, str]]
ROOT = Path(__file__).resolve().parents[2]

# make: one number a name; double: reads it, slowly if asked; total: all of them.
WORK = """
import json, os, signal, sys, time
from pathlib import Path

kind, name = sys.argv[1], (sys.argv[2:] or [""])[0]
params = json.loads(Path("work.json").read_text())
print(f"{kind} {name} on {os.environ.get('CUDA_VISIBLE_DEVICES', 'no GPU')}", flush=True)
Path("ran.log").open("a").write(f"{kind}@{name}\\n")
if f"{kind}@{name}" in params["fail"]:
    sys.exit(f"{kind} {name} cannot be made")
if kind == "make":
    Path("data/a").mkdir(parents=True, exist_ok=True)
    read = os.environ.get("SPLATFIX_PARAMS", "params.yaml")
    lines = Path(read).read_text().splitlines()
    plus = next(int(line.split()[1]) for line in lines if line.startswith("plus:"))
    Path("data/a", f"{name}.txt").write_text(str(len(name) + plus))
if kind == "double":
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    state = Path(".work/double", f"{name}.txt")
    step = int(state.read_text()) if state.exists() else 0
    if step:
        print(f"resumed at {step}", flush=True)
    while step < params["steps"]:
        step += 1
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_text(str(step))
        if stop:
            sys.exit(75)
        time.sleep(params["pause_s"])
    Path("data/b").mkdir(parents=True, exist_ok=True)
    number = int(Path("data/a", f"{name}.txt").read_text())
    Path("data/b", f"{name}.txt").write_text(str(2 * number))
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics", f"{name}.json").write_text('{"steps": %d}' % step)
if kind == "total":
    numbers = [int(Path("data/b", f"{one}.txt").read_text()) for one in params["names"]]
    Path("total.json").write_text(json.dumps({"total": sum(numbers)}))
"""

DVC_YAML = """
stages:
  make:
    matrix: {name: '${names}'}
    cmd: python work.py make ${item.name}
    deps: [work.py]
    params: [plus]
    outs: ['data/a/${item.name}.txt']
  double:
    matrix: {name: '${names}'}
    cmd: python work.py double ${item.name}
    deps: ['data/a/${item.name}.txt', work.py]
    outs: ['data/b/${item.name}.txt']
    metrics: [{'metrics/${item.name}.json': {cache: false}}]
  total:
    cmd: python work.py total
    deps: [data/b, work.py]
    metrics: [{total.json: {cache: false}}]
"""


class Project:
    """The project in its folder, and ways to run things there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = clean_environment(PYTHONPATH=str(ROOT))

    def create(self, names: list[str]) -> None:
        """Write the project and commit it."""
        folder = self.folder
        folder.mkdir(parents=True)
        (folder / "work.py").write_text(WORK)
        (folder / "dvc.yaml").write_text(DVC_YAML)
        (folder / ".gitignore").write_text("/data/\n/slurm_logs/\n/.work/\n/ran.log\n")
        (folder / ".dvcignore").write_text(".work/\n")
        slurm = Params.read(ROOT / "params.yaml").raw["slurm"]
        resources = {**slurm["default"], "cpus": 1, "memory": "512M", "time": "00:10:00"}
        slurm = {**slurm, "default": resources, "stages": {}, "group": {}, "pack": {}}
        self.write_params({"names": names, "plus": 0, "slurm": slurm})
        self.work(fail=[], steps=1, pause_s=0.0, names=names)
        for words in (
            *NEW_REPOSITORY,
            ("git", "add", "-A"),
            ("git", "commit", "-qm", "Begin"),
        ):
            self.run(*words)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        ended = subprocess.run(
            words, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=120
        )
        if check and ended.returncode:
            raise AssertionError(
                f"{words} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
            )
        return ended

    def submit(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`python -m stages.submit ...` in a process of its own."""
        return self.run(sys.executable, "-m", "stages.submit", *words, check=check)

    def write_params(self, values: dict[str, Any]) -> None:
        """Replace params.yaml."""
        YAML().dump(values, self.folder / "params.yaml")

    def change(self, **values: Any) -> None:
        """Change values of params.yaml; `slurm` ones are merged."""
        yaml = YAML()
        params = yaml.load(self.folder / "params.yaml")
        params["slurm"].update(values.pop("slurm", {}))
        params.update(values)
        yaml.dump(params, self.folder / "params.yaml")

    def work(self, **values: Any) -> None:
        """Change how the stages behave; DVC does not see this file."""
        path = self.folder / "work.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **values}))

    def lock(self) -> dict[str, Any]:
        """Stages of dvc.lock."""
        return YAML(typ="safe").load(self.folder / "dvc.lock")["stages"]

    def slurm_config(self) -> SlurmConfig:
        """The section `slurm` of its params."""
        return Params.read(self.folder / "params.yaml").section("slurm", SlurmConfig)

    def ran(self) -> list[str]:
        """Commands that ran since the last look."""
        path = self.folder / "ran.log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return sorted(lines)

    def is_clean(self) -> bool:
        """Whether nothing is stale."""
        return not Pipeline(self.folder).plan()
