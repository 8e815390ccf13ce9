"""The shape of the graph, as DVC itself builds it from dvc.yaml and params.yaml."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from source_tree import ROOT

from stages.run import digests
from stages.run.settings.params import Params
from stages.scenes.captures.config import CaptureStudy
from stages.scenes.static.config import StaticConfig
from stages.scenes.study.config import StudyConfig

# Folders whose content DVC keeps.
CACHED = ("data", "results")


@pytest.fixture(scope="module")
def index():
    """DVC's index of the workspace."""
    from dvc.repo import Repo

    with Repo(ROOT) as repo:
        yield repo.index


@pytest.fixture(scope="module")
def study() -> StudyConfig:
    """The study that drives the fan-out."""
    return Params.read(ROOT / "params.yaml").section("study", StudyConfig)


def paths(outs) -> list[str]:
    return [Path(out.def_path).as_posix() for out in outs]


def test_every_stage_has_a_description(index) -> None:
    assert index.stages
    assert [stage.addressing for stage in index.stages if not (stage.desc or "").strip()] == []


def test_every_stage_has_deps_and_outs(index) -> None:
    """The run cache, which also brings results back from a cluster, needs both."""
    assert [stage.addressing for stage in index.stages if not (stage.deps and stage.outs)] == []


def test_nothing_persists_and_nothing_runs_always(index) -> None:
    """Except for raw data and links to fixers: DVC must never remove what is the user's."""
    for stage in index.stages:
        for out in stage.outs:
            is_users = Path(out.def_path).parts[:2] in (("data", "raw"), ("data", "checkpoints"))
            assert bool(out.persist) is is_users, f"{stage.addressing}: {out.def_path}"
            assert not (is_users and out.use_cache), f"{stage.addressing}: {out.def_path}"
        assert not stage.always_changed, stage.addressing
        assert not stage.frozen, stage.addressing


def test_data_is_cached_and_metrics_are_in_git(index) -> None:
    for stage in index.stages:
        for out in stage.outs:
            top = Path(out.def_path).parts[0]
            small = bool(out.metric or out.plot)
            assert top in (*CACHED, "metrics"), f"{stage.addressing}: {out.def_path}"
            small |= out.def_path.endswith(".md") or bool(out.persist)
            small |= out.def_path == "metrics/report.html"  # the brief report of a clone
            assert small or out.use_cache, f"{stage.addressing}: {out.def_path} is in no cache"
            if top in CACHED and not out.persist:
                assert out.use_cache, f"{stage.addressing}: {out.def_path} belongs to DVC's cache"


def test_git_ignores_data_and_keeps_metrics(index) -> None:
    outs = [out for stage in index.stages for out in stage.outs]
    for cached in (True, False):
        kept = [out for out in outs if bool(out.use_cache or out.persist) is cached]
        names = paths(kept)
        # The slash marks folders that do not exist yet.
        queried = [name + "/" if name.startswith(CACHED) else name for name in names]
        ignored = subprocess.run(
            ["git", "check-ignore", "--no-index", "--stdin"],
            cwd=ROOT,
            input="\n".join(queried),
            capture_output=True,
            text=True,
        ).stdout.split()
        assert sorted(ignored) == sorted(queried if cached else []), (
            "the root .gitignore must list /data/<kind>/ for each kind; otherwise DVC writes one "
            "file per folder"
        )


def test_deps_are_paths_inside_the_repository(index) -> None:
    for stage in index.stages:
        for dep in paths(stage.deps):
            assert not dep.startswith(("/", "..")), f"{stage.addressing}: {dep}"


def test_fan_out_follows_the_study(index, study: StudyConfig) -> None:
    names = {stage.addressing for stage in index.stages}
    for stage in ("prepare", "calibrate", "train"):
        wanted = {f"{stage}@{scene}" for scene in study.scenes}
        assert {name for name in names if name.startswith(f"{stage}@")} == wanted
    pairs = ((scene, fixer) for scene in study.evaluated_scenes for fixer in study.fixers)
    wanted = {f"fixed_views@{scene}-{fixer}" for scene, fixer in pairs}
    assert {name for name in names if name.startswith("fixed_views@")} == wanted
    single = {
        "novel_views": study.evaluated_scenes,
        "evaluate": study.evaluated_scenes,
        "show": study.evaluated_scenes,
        "pairs": study.tuning_scenes,
        "pairs_test": study.internal_eval_scenes,
    }
    for stage, scenes in single.items():
        wanted = {f"{stage}@{scene}" for scene in scenes}
        assert {name for name in names if name.startswith(f"{stage}@")} == wanted


def test_fan_out_follows_the_captures(index) -> None:
    lists = Params.read(ROOT / "params.yaml").section("capture_study", CaptureStudy)
    names = {stage.addressing for stage in index.stages}
    for stage, captures in (
        ("capture_train", lists.captures),
        ("capture_evaluate", lists.evaluated),
    ):
        wanted = {f"{stage}@{c}-{variant}" for c in captures for variant in lists.variants}
        assert {name for name in names if name.startswith(f"{stage}@")} == wanted
    wanted = {f"capture_fix@{c}-{fixer}" for c in lists.evaluated for fixer in lists.fixers}
    assert {name for name in names if name.startswith("capture_fix@")} == wanted


def test_fan_out_follows_the_static_scenes(index) -> None:
    static = Params.read(ROOT / "params.yaml").section("static", StaticConfig)
    names = {stage.addressing for stage in index.stages}
    items = [f"{scene}-{camera}" for scene in static.scenes for camera in static.cameras]
    for stage, wanted in (
        ("static_prepare", static.scenes),
        ("static_train", items),
        ("static_evaluate", items),
        ("static_fix", [f"{scene}-{fixer}" for scene in static.scenes for fixer in static.fixers]),
    ):
        addresses = {name for name in names if name.startswith(f"{stage}@")}
        assert addresses == {f"{stage}@{item}" for item in wanted}


def test_static_training_never_reads_the_eval_frames(index) -> None:
    for stage in index.stages:
        if stage.name.startswith("static_train@"):
            data = [dep for dep in paths(stage.deps) if dep.startswith("data/")]
            subsets = [dep for dep in data if Path(dep).parent != digests.FOLDER]
            assert len(subsets) == 1
            assert Path(subsets[0]).name == stage.addressing.rpartition("-")[2]


def test_compare_comes_after_every_evaluation(index) -> None:
    graph = index.graph
    (compare,) = [stage for stage in index.stages if stage.addressing == "compare"]
    upstream = {stage.addressing for stage in graph.successors(compare)}
    evaluations = {stage.addressing for stage in index.stages if stage.name.startswith("evaluate@")}
    assert evaluations <= upstream


def test_report_comes_last(index) -> None:
    (report,) = [stage for stage in index.stages if stage.addressing == "report"]
    assert list(index.graph.predecessors(report)) == [], "nothing depends on a report"
    upstream = {stage.name.partition("@")[0] for stage in index.graph.successors(report)}
    assert {"show", "evaluate", "compare", "decide", "train", "calibrate"} <= upstream


@pytest.mark.parametrize(
    ("target", "lists", "makes_fixers"),
    [
        ("compare", {"capture_study": ["tuned"], "static": ["tuned"]}, False),
        ("decide", {"capture_study": ["tuned"], "static": ["tuned"]}, False),
        ("report", {"capture_study": [], "static": []}, False),
        ("report", {"capture_study": ["tuned"], "static": []}, True),
        ("report", {"study": ["base", "tuned"], "capture_study": [], "static": []}, True),
    ],
)
def test_fixers_are_made_where_a_method_needs_them(
    tmp_path: Path, target: str, lists: dict[str, list[str]], makes_fixers: bool
) -> None:
    """As DVC's command line lists what a target needs."""
    for name in ("dvc.yaml", "names_are_one_level.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["study"] |= {"methods": ["none"], "fixers": [], "subject": "none"}
    for section, fixers in lists.items():
        params[section]["fixers"] = fixers
    yaml.dump(params, tmp_path / "params.yaml")
    dvc = Path(sys.executable).with_name("dvc")
    for words in (["init", "--no-scm", "--quiet"], ["dag", "--dot", target]):
        done = subprocess.run([dvc, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    needed = {name.partition("@")[0] for name in re.findall(r'"([^"]+)"', done.stdout)}
    assert {"evaluate", "train", target} <= needed
    of_fixers = {"base", "tune", "manifest", "pairs", "pairs_test"}
    assert needed & of_fixers == (of_fixers if makes_fixers else set())


def test_training_reads_no_metrics_or_raw_data(index) -> None:
    """Images of target cameras reach training only through data/scenes, with their role."""
    for stage in index.stages:
        if stage.name.startswith(("calibrate@", "train@")):
            assert not [dep for dep in paths(stage.deps) if dep.startswith(("metrics", "data/raw"))]


def test_python_byte_code_is_no_dependency() -> None:
    assert "__pycache__/" in (ROOT / ".dvcignore").read_text().splitlines()


def test_options_that_every_clone_needs_are_in_the_config() -> None:
    from configparser import ConfigParser

    config = ConfigParser()
    config.read(ROOT / ".dvc" / "config")
    core = {
        key: config.getboolean("core", key) for key in ("analytics", "check_update", "autostage")
    }
    assert core == {"analytics": False, "check_update": False, "autostage": True}


def test_lock_has_no_stage_of_an_earlier_graph(index) -> None:
    """DVC keeps them, and writes the whole file again after every stage: a second a thousand."""
    stages = {stage.addressing for stage in index.stages}
    recorded = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    assert sorted(set(recorded) - stages) == []
