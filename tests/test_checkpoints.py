"""Stage `checkpoints`: DVC notices that a fixer that params name has other content."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.checkpoints import main
from stages.graph.pipeline import Pipeline
from stages.graph.repository import due, stage_statuses
from stages.run.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
STAGE = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["checkpoints"]
PARAMS = """base:
  source: {source}
  components: stabilityai/sd-turbo
tune:
  init_from: '{init_from}'
runtime:
  base:
    cache_dir: hub
"""


def set_params(source: Path | str = "shipped", init_from: Path | str = "") -> None:
    Path("params.yaml").write_text(PARAMS.format(source=source, init_from=init_from))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params of the demo, and this stage to call."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["checkpoints"])
    set_params()
    return folder


def run(words: str) -> str:
    """Run a command in the project and return its output."""
    unwanted = ("DVC_", "SLURM_", "SPLATFIX_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    env |= {"PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(Path("..", "site").resolve())}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    done = subprocess.run(words.split(), env=env, capture_output=True, text=True, timeout=120)
    assert not done.returncode, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def ran() -> list[str]:
    """Stages but `checkpoints` that ran since the last call."""
    log = Path("ran.log")
    names = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return sorted(names)


def write_graph() -> None:
    """Stage `checkpoints` and two that read its links, in a new repository."""
    graph = {"checkpoints": {**STAGE, "deps": []}}
    outs = [next(iter(out)) for out in STAGE["outs"]]
    for name, prefix in (("base", "data/checkpoints/base."), ("tune", "data/checkpoints/tune.")):
        deps = [out for out in outs if out.startswith(prefix)]
        script = f"echo {name} >> ran.log; date +%s%N > {name}.txt"
        graph[name] = {"cmd": script, "deps": deps, "outs": [f"{name}.txt"]}
    YAML().dump({"stages": graph}, Path("dvc.yaml"))
    Path(".gitignore").write_text("/data/\n/ran.log\n")
    run("git init -q")
    run("dvc init -q")


@pytest.mark.slow
def test_other_content_of_a_named_fixer_reruns_what_reads_it(project: Path) -> None:
    write_graph()
    run("dvc repro -q")
    assert ran() == ["base", "tune"]

    folder, file = project.parent / "fixer", project.parent / "model.pkl"
    (folder / "unet").mkdir(parents=True)
    weights = folder / "unet" / "w.safetensors"
    weights.write_bytes(b"one")
    file.write_bytes(b"first")
    set_params(folder, file)
    run("dvc repro -q")
    assert ran() == ["base", "tune"]
    assert "didn't change" in run("dvc repro")
    assert run("dvc status") == "Data and pipelines are up to date.\n"

    weights.write_bytes(b"two")
    run("dvc repro -q")
    assert ran() == ["base"]
    file.write_bytes(b"other")
    run("dvc repro -q")
    assert ran() == ["tune"]
    (folder / "fixer.json").write_text("{}")
    assert "modified" in run("dvc status base")
    run("dvc repro -q")
    assert ran() == ["base"]

    set_params("nvidia/difix_ref", "")
    run("dvc repro -q")
    run("dvc checkout -q")
    assert weights.read_bytes() == b"two", "DVC removes the link alone"
    assert file.read_bytes() == b"other"
    assert Path("data/checkpoints/base.source").read_text() == "nvidia/difix_ref\n"


@pytest.mark.slow
def test_a_named_fixer_that_went_away_is_named_with_what_to_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC's own commands fail at a link that leads nowhere, whatever params name by then."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project.parent / "site"))
    write_graph()
    one, other = project.parent / "one.pkl", project.parent / "other.pkl"
    for file in (one, other):
        file.write_bytes(file.name.encode())
    set_params(one)
    run("dvc repro -q")
    one.rename(project.parent / "kept.pkl")
    command = "dvc repro -f checkpoints"
    message = (
        f"data/checkpoints/base.source: a link to {one}, which is gone; put it back, or name "
        f"another in params.yaml and run `{command}`"
    )
    for look in (stage_statuses, lambda: Pipeline(project).plan()):
        with pytest.raises(UserError) as refused:
            look()
        assert str(refused.value) == message
    (project.parent / "kept.pkl").rename(one)
    assert due(stage_statuses()) == []
    one.unlink()
    set_params(other)
    run(command)
    assert Path("data/checkpoints/base.source").resolve() == other
    assert [step.name for step in due(stage_statuses())] == ["base"]


@pytest.mark.slow
def test_a_link_of_the_user_that_leads_nowhere_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project.parent / "site"))
    stages = {"read": {"cmd": "cat raw/* > read.txt", "deps": ["raw"], "outs": ["read.txt"]}}
    YAML().dump({"stages": stages}, Path("dvc.yaml"))
    run("git init -q")
    run("dvc init -q")
    Path("raw").symlink_to("../disk")
    with pytest.raises(UserError) as refused:
        stage_statuses()
    said = "raw: a link to ../disk, which is gone; put it back, or link another"
    assert str(refused.value) == said


def test_paths_are_linked_and_text_is_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("here").mkdir()
    set_params("here", "nowhere.pkl")
    main()
    link = Path("data/checkpoints/base.source")
    assert link.is_symlink()
    assert link.resolve() == project / "here"
    assert Path("data/checkpoints/tune.init_from").read_text() == "nowhere.pkl\n"
    assert f"data/checkpoints/base.source: {project / 'here'}" in capsys.readouterr().out
    set_params("shipped")
    main()
    assert not link.is_symlink()
    assert Path("here").is_dir()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"source": "data/difix/tuned"},
            r"base\.source: data/difix/tuned is written by stage tune",
        ),
        ({"init_from": "./data/difix/base"}, r"tune\.init_from: .* is written by stage base"),
        ({"init_from": "data/difix/tuned/x"}, r"tune\.init_from: .* is written by stage tune"),
    ],
)
def test_what_a_stage_writes_is_refused(
    project: Path, values: dict[str, str], message: str
) -> None:
    set_params(**values)
    with pytest.raises(UserError, match=message):
        main()
