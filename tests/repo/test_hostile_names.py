"""Names with path or shell syntax, passed to DVC in a copy of the repository.

`dvc repro` removes the outs of a stage before it starts its command, so the stage's own code cannot
protect foreign folders. Wherever such a name could lead there is a folder with a file in it.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML
from source_tree import ROOT

from stages.run.settings.fan_out import LISTS, SEEDS

GRAPH = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
MATRICES = {name: stage["matrix"] for name, stage in GRAPH.items() if "matrix" in stage}
# A valid name, for stages that take two names of which the other is hostile.
GOOD = {
    ("study", "evaluated_scenes"): "scene",
    ("study", "downstream_scenes"): "scene",
    ("study", "fixers"): "tuned",
    ("capture_study", "captures"): "room",
    ("capture_study", "evaluated"): "room",
    ("capture_study", "fixers"): "tuned",
    ("static", "scenes"): "scene",
    ("static", "fixers"): "tuned",
    SEEDS: 1,
}
FAN_OUT = sorted(
    {tuple(value[2:-1].split(".")) for matrix in MATRICES.values() for value in matrix.values()}
)
# In data/raw a name is two levels deep; in results and metrics one or two.
CLIMBING = (
    "../../precious",
    "../../../precious",
    "../precious",
    "precious/../../precious",
    "{outside}",
    "..",
    ".",
    "",
    "precious/images",
    "../../data/raw/precious",
    "../../../{here}/precious",
    "../{here}/precious",
    "/precious",
)
NOT_NAMES = (
    "x; touch F; true",
    "x\ntouch F\n",
    "a'\ntouch F\n'",
    "$(touch F)",
    "`touch F`",
    "x && touch F",
    "*",
    "?recious",
    "--help",
    "~",
    " ",
    "precious ",
    "room.v2",
    2024,
    1.5,
    None,
    True,
    "précious",
)
# Runs `dvc` with many arguments in one process: each start takes a second.
DVC = """
import json, sys
from pathlib import Path
from dvc.cli import main
for case in json.load(sys.stdin):
    Path("params.yaml").write_text(case["params"])
    sys.stderr.flush()
    print("\\n=====", file=sys.stderr, flush=True)
    print(main(case["words"]), flush=True)
"""


class Copy(NamedTuple):
    """A copy of the repository without data, whose lists are empty."""

    folder: Path
    params: dict[str, Any]
    foreign: tuple[Path, ...]
    environment: dict[str, str]

    def fill(self, names: Sequence[Any]) -> list[Any]:
        """Names with the paths of this copy filled in."""
        places = {"here": self.folder.name, "outside": self.folder.parent / "precious"}
        return [
            name.format(**places) if isinstance(name, str) and "{" in name else name
            for name in names
        ]

    def with_item(self, keys: tuple[str, str], name: object) -> str:
        """params.yaml with one name in a list, and the other names that its stages need."""
        return self.with_items(keys, [name])

    def with_items(self, keys: tuple[str, str], names: Sequence[object]) -> str:
        """As `with_item`, with several names."""
        raw = json.loads(json.dumps(self.params))
        for other, good in GOOD.items():
            raw[other[0]][other[1]] = [good] if _together(keys, other) else []
        raw[keys[0]][keys[1]] = names
        return json.dumps(raw)  # which is YAML too

    def dvc(self, cases: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[int, str]]:
        """Exit code and stderr of `dvc WORDS` with these params, one after the other."""
        commands = [{"params": params, "words": list(words)} for params, words in cases]
        done = subprocess.run(
            [sys.executable, "-c", DVC],
            cwd=self.folder,
            env=self.environment,
            input=json.dumps(commands),
            capture_output=True,
            text=True,
        )
        codes = [line for line in done.stdout.splitlines() if line.lstrip("-").isdigit()]
        errors = done.stderr.split("\n=====\n")[1:]
        assert len(codes) == len(errors) == len(cases), done.stderr[-3000:]
        return list(zip(map(int, codes), errors, strict=True))

    def require_untouched(self) -> None:
        """Every foreign folder still has its file, and no shell ran a name."""
        assert [str(path) for path in self.foreign if not (path / "kept").is_file()] == []
        assert [str(path) for path in self.folder.parent.parent.rglob("F")] == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The current repository in a commit of its own, and folders that belong to somebody else."""
    outside = tmp_path_factory.mktemp("outer")
    folder = outside / "inner" / "repository"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if not name.startswith(("metrics/", "tests/", "benchmarks/", "docs/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    params = YAML(typ="safe").load(folder / "params.yaml")
    for section, key in FAN_OUT:
        if (section, key) not in {("capture_study", "variants"), ("static", "cameras")}:
            params[section][key] = []
    (folder / "params.yaml").write_text(json.dumps(params))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("DVC_")},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DVC_SITE_CACHE_DIR": str(outside / "site"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for words in (
        ("init", "-q"),
        ("config", "user.email", "test@localhost"),
        ("config", "user.name", "test"),
        ("add", "-A"),
        ("commit", "-qm", "Begin"),
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    inside = (
        "",
        "data",
        "data/raw",
        "data/raw/precious/images",
        "data/scenes",
        "data/static",
        "data/novel_views/scene",
        "data/repository",
        "metrics",
        "metrics/scenes",
        "metrics/report/scenes",
        "results",
        "results/static",
        "results/room",
        "results/static/scene",
        "results/fixed",
        "results/fixed/scene",
        "metrics/captures/room",
        "metrics/static/scenes/scene",
    )
    foreign = (
        outside / "precious",
        outside / "inner" / "precious",
        *(folder / place / "precious" for place in inside),
    )
    for path in foreign:
        path.mkdir(parents=True)
        (path / "kept").write_text("somebody's work")
    return Copy(folder, params, foreign, environment)


@pytest.fixture(autouse=True)
def untouched(copy: Copy) -> Iterator[None]:
    """After every test all foreign folders are unchanged."""
    yield
    copy.require_untouched()


def _together(keys: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether some stage takes a name of each list."""
    pair = {".".join(keys), ".".join(other)}
    return keys != other and any(
        pair <= {value[2:-1] for value in matrix.values()} for matrix in MATRICES.values()
    )


def stages_of(keys: tuple[str, str]) -> list[str]:
    """Stages that fan out over a list."""
    wanted = "${" + ".".join(keys) + "}"
    return [name for name, matrix in MATRICES.items() if wanted in matrix.values()]


def test_every_list_of_the_graph_is_checked() -> None:
    assert set(FAN_OUT) - {SEEDS} <= set(LISTS)


def test_name_of_another_level_stops_dvc_as_it_reads_the_graph(copy: Copy) -> None:
    cases = []
    for keys in FAN_OUT:
        # All names for outs two levels deep; elsewhere one of each kind.
        names = CLIMBING if keys == ("demo", "scenes") else CLIMBING[:2] + CLIMBING[4:5]
        for name in copy.fill(names):
            cases.append((copy.with_item(keys, name), ["repro"]))
        climbs = copy.with_item(keys, CLIMBING[0])
        cases += [(climbs, ["repro", "-s", "--force", stage]) for stage in stages_of(keys)]
    for (_, words), (code, errors) in zip(cases, copy.dvc(cases), strict=True):
        assert code == 255, (words, errors)
        assert "Running stage" not in errors, (words, errors)


@pytest.mark.parametrize("keys", FAN_OUT, ids=".".join)
def test_name_is_one_word_of_every_command(copy: Copy, keys: tuple[str, str]) -> None:
    from dvc.repo import Repo

    names = [name for name in NOT_NAMES if isinstance(name, str)]
    (copy.folder / "params.yaml").write_text(copy.with_items(keys, names))
    with Repo(copy.folder) as repo:
        commands = [(stage.name, shlex.split(stage.cmd)) for stage in repo.index.stages]
    for stage in stages_of(keys):
        words = [words for address, words in commands if address.startswith(f"{stage}@")]
        assert len(words) >= len(names)
        for name in names:
            assert any(name in command for command in words), (stage, name)
        assert all(set(names) & set(command) for command in words), words


def test_name_with_shell_syntax_is_refused_by_the_stage(copy: Copy) -> None:
    every = copy.with_items(("demo", "scenes"), NOT_NAMES)
    other = copy.with_item(("static_demo", "scenes"), NOT_NAMES[0])
    cases = [(every, ["repro", "-k", "demo"]), (every, ["repro"]), (other, ["repro", "-f"])]
    ended = copy.dvc(cases)
    assert [code for code, _ in ended] == [255, 255, 255]
    # Every stage was started and ended with the exit code of bad input.
    assert ended[0][1].count("exited with 2") == len(NOT_NAMES)
    left = sorted(path.name for path in copy.folder.glob("data/raw/*"))
    assert left == [".gitignore", "precious"]


@pytest.mark.parametrize(
    "setting",
    [
        "demo.scenes=['../../precious']",
        "static_demo.scenes=['../../../precious']",
        "demo_capture.captures=['x; touch F; true']",
    ],
)
def test_experiment_is_stopped_too(copy: Copy, setting: str) -> None:
    (copy.folder / "params.yaml").write_text(json.dumps(copy.params))
    done = subprocess.run(
        ["dvc", "exp", "run", "-S", setting],
        cwd=copy.folder,
        env=copy.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 255, done.stderr


def test_names_of_one_level_run(copy: Copy) -> None:
    """Valid names pass the same checks, and their stages start."""
    from dvc.repo import Repo

    names = ["hi4d_pair15_fight", "pose2sim_4cam", "4cam", "demo-room"]
    (copy.folder / "params.yaml").write_text(copy.with_items(("study", "scenes"), names))
    with Repo(copy.folder) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
    for name in names:
        stage = stages[f"prepare@{name}"]
        assert stage.cmd == f"python -m stages.prepare --scene {name}"
        assert Path(stage.wdir) == copy.folder
