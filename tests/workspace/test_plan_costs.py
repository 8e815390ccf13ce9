"""What would run and for how long: over DVC's own graph of a small repository."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from stages import plan as entry
from stages.graph.repository import StageStatus, due, needed, of_targets, stage_statuses
from stages.run.errors import UserError
from stages.run.files import write_json
from stages.workspace import costs, probes
from stages.workspace.costs import by_kind, estimate, record
from stages.workspace.repro_plan import duration, plan, plan_text, require_room

GRAPH = """
stages:
  demo:
    matrix: {scene: [a, b]}
    cmd: python write.py data/raw/${item.scene} 1000
    deps: [write.py]
    params: [demo]
    outs: ['data/raw/${item.scene}']
  train:
    matrix: {scene: [a, b]}
    cmd: python write.py data/splats/${item.scene} 3000
    deps: ['data/raw/${item.scene}', write.py]
    params: [train]
    outs: ['data/splats/${item.scene}']
  compare:
    cmd: python write.py metrics.json 10
    deps: [data/splats, write.py]
    outs: [metrics.json]
"""
WRITE = """
import pathlib, sys
path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(sys.argv[1][-1] * int(sys.argv[2]) + pathlib.Path("params.yaml").read_text())
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose five stages are up to date."""
    root = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        # Stages are started as `python`.
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
        (root / "dvc.yaml").write_text(GRAPH)
        (root / "write.py").write_text(WRITE)
        (root / "params.yaml").write_text("demo:\n  seed: 0\ntrain:\n  max_steps: 100\n")
        with Repo.init(no_scm=True) as repo:
            repo.reproduce()
    return root


@pytest.fixture
def inside(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(repository)
    (repository / "params.yaml").write_text("demo:\n  seed: 0\ntrain:\n  max_steps: 100\n")
    return repository


def params(seed: int = 0, max_steps: int = 100) -> None:
    Path("params.yaml").write_text(f"demo:\n  seed: {seed}\ntrain:\n  max_steps: {max_steps}\n")


def test_nothing_is_due_when_nothing_changed(inside: Path) -> None:
    selected = stage_statuses()
    assert {step.name for step in selected} == {"demo@a", "demo@b", "train@a", "train@b", "compare"}
    assert due(selected) == []
    assert (
        plan_text(plan(selected, {}), 1, inside) == "nothing would run: all 5 stages are up to date"
    )


def test_a_changed_param_makes_its_stages_and_all_after_them_due(inside: Path) -> None:
    params(max_steps=300)
    selected = stage_statuses()
    names = [step.name for step in due(selected)]
    assert names[-1] == "compare"
    assert set(names) == {"train@a", "train@b", "compare"}
    train = next(step for step in selected if step.name == "train@a")
    assert train.changed == ("train.max_steps modified",)
    assert train.upstream == {"demo@a"}
    assert train.locked_params == {"train": {"max_steps": 100}}
    assert train.params == {"train": {"max_steps": 300}}
    assert train.out_bytes is not None
    assert 3000 < train.out_bytes < 3100
    assert not train.in_run_cache


def test_a_target_needs_only_what_is_before_it(inside: Path) -> None:
    assert {step.name for step in needed(stage_statuses(), "train@b")} == {"demo@b", "train@b"}
    assert needed(stage_statuses(), "tune") == []


def test_results_that_are_kept_cost_nothing(inside: Path) -> None:
    (inside / "data/raw/b").unlink()
    lost = next(step for step in stage_statuses() if step.name == "demo@b")
    assert lost.changed == ("its results are missing or changed",)
    assert lost.in_run_cache
    assert estimate(lost, [lost], by_kind({"demo@b": {"seconds": 50}})).seconds == 0
    with Repo() as repo:
        repo.checkout()


def step(
    name: str, size: int | None = None, before: int = 100, now: int = 100, scaler: float = 1.0
) -> StageStatus:
    values = (
        {"train": {"max_steps": count, "steps_scaler": factor}}
        for count, factor in ((before, 1.0), (now, scaler))
    )
    return StageStatus(name, frozenset(), ("changed",), False, size, *values)


def test_time_is_the_stage_s_own_in_proportion_to_steps() -> None:
    known = {
        "train@a": {"seconds": 10.0, "steps": 100},
        "train@b": {"seconds": 30.0, "steps": 100},
        "train@c": {"seconds": 20.0, "steps": 100},
    }
    own = estimate(step("train@b", now=400), [], by_kind(known))
    assert (own.seconds, own.is_scaled) == (120, True)
    assert estimate(step("train@b", scaler=0.5), [], by_kind(known)).seconds == 15
    like = estimate(step("train@new"), [step("train@a", 400), step("train@b", 600)], by_kind(known))
    assert (like.seconds, like.out_bytes, like.is_scaled) == (20, 500, False)
    assert estimate(step("evaluate@a"), [], by_kind(known)).seconds is None


def test_trainings_of_pairs_count_as_those_of_train() -> None:
    def pairs(**changed: object) -> StageStatus:
        before, now = (
            {"pairs": one, "train": {"max_steps": 200, "steps_scaler": 1.0}}
            for one in ({}, changed)
        )
        return StageStatus("pairs@a", frozenset(), ("changed",), False, None, before, now)

    known = {"train@a": {"seconds": 10.0, "steps": 100}, "train@b": {"seconds": 90.0, "steps": 100}}
    known |= {"pairs@a": {"seconds": 5.0, "steps": None, "trainings": 1}}
    degraded = {"sparse": 2, "cycle": 0.0}
    more = pairs(leave_out=["4", ["16", "40"]], degradation=degraded, poses="given")
    assert estimate(more, [], by_kind(known)).seconds == 5 + (4 - 1) * 20
    assert estimate(more, [], by_kind(known)).is_scaled
    same = estimate(pairs(leave_out=["4"]), [], by_kind(known))
    assert (same.seconds, same.is_scaled) == (5, False)


def test_plan_tells_sums_and_doubts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probes, "free_bytes", lambda _: 3 * 2**30)
    rows = [step("train@a", 2**30, now=200), step("train@b", 2**30), step("decide", 0)]
    known = {name: {"seconds": 60.0, "steps": 100} for name in ("train@a", "train@b")}
    selected = plan(rows, known)
    text = plan_text(selected, 1, tmp_path)
    assert "train, 2 times" in text
    assert "3 of 3 stages would run" in text
    assert "time: about 3 min 0 s, one stage after another (1 never measured; 1 in " in text
    assert "disk: about 2.00 GiB; 3.00 GiB are free" in text
    require_room(selected, 1, tmp_path)
    with pytest.raises(UserError, match=r"expected about 4\.00 GiB"):
        require_room(selected, 2, tmp_path)
    assert duration(59.6) == "1 min 0 s"


def test_plan_tells_that_its_sizes_are_of_the_last_results(tmp_path: Path) -> None:
    def ending(*reasons: str, size: int | None = 0) -> list[str]:
        params = {"train": {"steps_scaler": 40.0}, "scenes": {}}
        changed = StageStatus("train@a", frozenset(), reasons, False, size, {}, params)
        lines = plan_text(plan([changed], {}), 1, tmp_path).splitlines()
        return lines[next(at for at, line in enumerate(lines) if line.startswith("disk:")) :]

    (line,) = ending("its inputs change", "stages/train.py modified")
    assert line.startswith("disk: about 0.00 GiB; ")
    for reason in ("train.steps_scaler modified", "scenes.a.timestamps new"):
        (_, note) = ending("stages/train.py modified", reason)
        assert note.endswith("of the last runs: changed params may need more or less")
    (line, _) = ending("train.seed modified", size=None)
    assert "GiB (1 of unknown size); " in line


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("train@a", "train/a.json"),
        ("tune", "tune/fixer.json"),
        ("fixed_views@hi4d_pair15_fight-tuned", "fixed_views/hi4d_pair15_fight.tuned.json"),
        ("pairs_test@a", "pairs/a.json"),
    ],
)
def test_costs_of_every_kind_of_stage_are_found(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    path = tmp_path / "work" / "cost" / file
    path.parent.mkdir(parents=True)
    write_json(path, {"seconds": 12.5, "peak_memory_gib": 1.0, "device": "x86_64", "other": 1})
    kept = tmp_path / "costs.json"
    write_json(kept, {"train@old": {"seconds": 1.0, "steps": 5}})
    assert record([step(name), step("evaluate@a")], kept) == 2
    written = json.loads(kept.read_text())
    assert written["train@old"] == {"seconds": 1.0, "steps": 5}
    assert written[name] == {
        "seconds": 12.5,
        "peak_memory_gib": 1.0,
        "device": "x86_64",
        "steps": 100 if name.startswith("train") else None,
    }


def test_entry_plans_a_target_and_refuses_an_unknown_one(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params(seed=7)
    ask: Callable[..., None] = lambda *words: (  # noqa: E731
        monkeypatch.setattr(sys, "argv", ["plan", *words]),
        entry.main(),
    )
    ask("train@a")
    assert "2 of 2 stages would run" in capsys.readouterr().out
    ask("train")
    assert "4 of 4 stages would run" in capsys.readouterr().out
    with pytest.raises(UserError, match="did you mean train@a"):
        ask("trian@a")
    assert costs.read_costs(Path("metrics/costs.json")) == {}


def test_targets_of_repro_have_to_be_stages(inside: Path) -> None:
    steps = stage_statuses()
    whole = {"demo@a", "demo@b", "train@a", "train@b"}
    assert {one.name for one in of_targets(steps, ["train"])} == whole
    assert {one.name for one in of_targets(steps, ["train@b"])} == {"demo@b", "train@b"}
    for target in ("trian@a", "tr*", ""):
        with pytest.raises(UserError, match="no such stage"):
            of_targets(steps, ["train@b", target])


def test_outside_a_repository_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not inside of a DVC repository"):
        stage_statuses()
