"""Arms of an ablation and their runs: failed ones are reported, finished ones skipped."""

import logging
import os
import shlex
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ConfigDict
from ruamel.yaml import YAML

from stages.graph import repository
from stages.graph.repository import StageStatus
from stages.run.errors import UserError
from stages.run.files import write_json
from stages.run.process import processes
from stages.run.settings.params import Params, Section
from stages.workspace import ablate
from stages.workspace.arms import Arm, arms, current, parse, repeats, require_valid

TEXT = """
train: {means_lr: 1.0e-4, seed: 42, eval_steps: [1, 2]}
pairs: {reference: {strategy: same_time}, poses: imperfect}
tune: {seed: 0, mixed: no}
"""


@pytest.fixture
def params() -> Params:
    return Params(YAML().load(TEXT), Path("params.yaml"))


def labels(params: Params, *texts: str, singly: bool = False) -> list[str]:
    return [
        one.label for one in arms([parse(text, params) for text in texts], params, singly=singly)
    ]


def test_arms_are_all_combinations_but_the_default(params: Params) -> None:
    given = ("pairs.reference.strategy=same_time,temporal,mixed", "pairs.poses=imperfect,given")
    assert labels(params, *given) == [
        "pairs.poses=given",
        "pairs.reference.strategy=temporal",
        "pairs.reference.strategy=temporal pairs.poses=given",
        "pairs.reference.strategy=mixed",
        "pairs.reference.strategy=mixed pairs.poses=given",
    ]
    assert labels(params, *given, singly=True) == [
        "pairs.reference.strategy=temporal",
        "pairs.reference.strategy=mixed",
        "pairs.poses=given",
    ]


def test_values_are_compared_as_yaml_reads_them(params: Params) -> None:
    assert labels(params, "train.means_lr=0.0001,1e-3") == ["train.means_lr=1e-3"]
    assert labels(params, "tune.mixed=no,bf16") == ["tune.mixed=bf16"]
    assert labels(params, "train.eval_steps=[1, 2],[3,4]") == ["train.eval_steps=[3,4]"]
    assert current(params, "train.eval_steps") == (1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pairs.pose=given", "did you mean poses"),
        ("pairs.poses", "not a factor"),
        ("pairs.poses=given,", "not a factor"),
        ("train.seed.x=1", "no 'x' there"),
        ("tune.seed=[1", "a value in YAML"),
    ],
)
def test_bad_factor_is_explained(text: str, message: str, params: Params) -> None:
    with pytest.raises(UserError, match=message):
        parse(text, params)


def test_value_that_a_section_refuses_is_reported_before_anything_runs(params: Params) -> None:
    class Reference(Section):
        strategy: Literal["same_time", "temporal"]

    class Pairs(Section):
        reference: Reference
        poses: str

    def faults(params: Params) -> tuple[object, list[UserError]]:
        return params.check_all({"pairs": Pairs, "train": Free, "tune": Free}, {})

    def judge(*texts: str) -> None:
        require_valid(arms([parse(text, params) for text in texts], params), params, faults)

    class Free(Section):
        model_config = ConfigDict(extra="allow")

    judge("pairs.reference.strategy=temporal", "pairs.poses=given")
    with pytest.raises(UserError, match=r"pairs\.reference\.strategy: got 'mxied'"):
        judge("pairs.reference.strategy=temporal,mxied", "pairs.poses=given,imperfect")
    assert current(params, "pairs.reference.strategy") == "same_time"
    with pytest.raises(UserError, match="command line") as caught:
        judge("pairs.poses=1")
    assert caught.value.fix == "set another value there"


def test_errors_of_the_default_are_not_those_of_its_arms(params: Params) -> None:
    def faults(params: Params) -> tuple[list[UserError]]:
        seed = current(params, "train.seed")
        bad = [UserError("train.seed", "7")] if seed == 7 else []
        return ([UserError("data/raw/x", "missing"), *bad],)

    require_valid(arms([parse("train.seed=6", params)], params), params, faults)
    with pytest.raises(UserError) as caught:
        require_valid(arms([parse("train.seed=6,7", params)], params), params, faults)
    assert str(caught.value) == "train.seed: 7"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("train.eval_steps=1", "write 'train.eval_steps=[1]' for 1 experiment"),
        (
            "train.eval_steps=1,2",
            "write 'train.eval_steps=[1],[2]' for 2 experiments, or 'train.eval_steps=[1,2]' "
            "for one",
        ),
    ],
)
def test_list_without_brackets_is_answered_by_what_works(
    text: str, fix: str, params: Params
) -> None:
    with pytest.raises(UserError, match="in brackets") as caught:
        parse(text, params)
    assert caught.value.fix == fix
    (working,) = shlex.split(fix.partition("write ")[2].partition(" for")[0])
    assert len(parse(working, params).values) == text.count(",") + 1


def test_noise_is_of_all_that_a_factor_runs_again(params: Params) -> None:
    tuning = [parse("pairs.poses=given", params)]
    assert [one.label for one in repeats(tuning, params, 2)] == ["tune.seed=1", "tune.seed=2"]
    training = [parse("train.means_lr=1", params)]
    assert [one.label for one in repeats(training, params, 1)] == ["tune.seed=1 train.seed=43"]
    seeds = [parse("tune.seed=0,1,3", params)]
    assert [one.label for one in repeats(seeds, params, 2)] == ["tune.seed=2", "tune.seed=4"]


def test_name_is_git_s_and_of_these_settings_alone() -> None:
    one = Arm(("train.eval_steps=[3, 4]", "base.source=nvidia/difix_ref"))
    assert one.name.startswith("ablate-3-4-nvidia-difix-ref-")
    assert one.name == Arm(one.settings).name
    assert one.name != Arm(("train.eval_steps=[3, 4]", "base.source=nvidia/difix")).name
    assert Arm(("tune.seed=1",), is_repeat=True).name.startswith("repeat-1-")


def test_failed_arm_is_reported_and_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path))
    (tmp_path / "params.yaml").write_text(TEXT)
    default = Params.read(tmp_path / "params.yaml")
    good, bad = Arm(("pairs.poses=given",)), Arm(("tune.seed=-1",))
    done: dict[str, str] = {}
    broken, asked = True, []

    def run(name, settings, target, log, work, *, queue):
        asked.append((name, tuple(settings), target))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("first\nERROR: failed to reproduce 'tune'\n")
        if name == bad.name and broken:
            return 255
        done[name] = "rev"
        return 0

    monkeypatch.setattr(repository, "experiments", lambda: dict(done))
    monkeypatch.setattr(repository, "run_experiment", run)
    assert ablate.run_arms([bad, good], default, queue=False) == [bad]
    assert "failed to reproduce 'tune'" in caplog.text
    assert asked == [(bad.name, bad.settings, "compare"), (good.name, good.settings, "compare")]
    broken = False
    assert ablate.run_arms([bad, good], default, queue=False) == []
    assert [name for name, _, _ in asked] == [bad.name, good.name, bad.name]
    assert "finished before" in caplog.text
    done.clear()
    default.path.write_text(TEXT.replace("seed: 0", "seed: 1"))
    with pytest.raises(UserError, match="edited while arms ran"):
        ablate.run_arms([good], default, queue=False)
    assert len(asked) == 3, "an arm of other params would not compare"


def test_default_must_be_up_to_date() -> None:
    def step(name: str, upstream: set[str], *changed: str) -> StageStatus:
        return StageStatus(name, frozenset(upstream), changed, False, 0, {}, {})

    after = step("report", {"compare"}, "report.title modified")
    sound = [step("tune", set()), step("compare", {"tune"}), after]
    ablate.require_default(sound)
    with pytest.raises(UserError, match=r"tune\.steps modified"):
        ablate.require_default([step("tune", set(), "tune.steps modified"), *sound[1:]])


def test_what_will_run_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of these stages `report` is not needed, and `train` does not depend on `pairs`."""

    def step(name: str, upstream: set[str], **of_stage: object) -> StageStatus:
        return StageStatus(name, frozenset(upstream), (), False, 0, of_stage, of_stage)

    steps = [
        step("train@a", set(), train={"seed": 42, "max_steps": 100}),
        step("pairs@a", {"train@a"}, pairs={"poses": "imperfect"}),
        step("tune", {"pairs@a"}, **{"tune.steps": 10, "study.seeds": []}),
        step("compare", {"tune"}),
        step("report", {"compare", "pairs@a"}, pairs={"poses": "imperfect"}),
    ]
    seconds = {"train@a": 50.0, "pairs@a": 5.0, "tune": 60.0}
    costs = {name: {"seconds": each} for name, each in seconds.items()}
    costs["train@a"]["steps"] = 100
    write_json(tmp_path / "costs.json", costs)
    monkeypatch.setattr(repository, "experiments", lambda: {done.name: "rev"})
    done, poses = Arm(("tune.steps=20",)), Arm(("pairs.poses=given",))
    longer, more = Arm(("train.max_steps=200",)), Arm(("study.seeds=[1]",))
    text = ablate.announcement([done, poses, longer, more], steps, tmp_path / "costs.json")
    assert text.splitlines() == [
        "experiments to run: 3 of 4, 1 finished before",
        "  pairs.poses=given: 3 stages (pairs@a; tune; compare), "
        "about 1 min 55 s (1 never measured; 1 in proportion to their steps)",
        "  train.max_steps=200: 4 stages (train@a; pairs@a; tune; compare), "
        "about 2 min 45 s (1 never measured; 1 in proportion to their steps)",
        "  study.seeds=[1]: 2 stages (tune; compare), about 1 min 0 s (1 never measured)",
        "  study.seeds: stages that it adds are not counted",
        "in all at most 9 stages, about 5 min 40 s (3 never measured; 2 in proportion to their "
        "steps); results of equal inputs come from the cache",
    ]
    assert ablate.announcement([done], steps, tmp_path / "costs.json") == (
        "experiments to run: 0 of 1, 1 finished before"
    )


def test_experiment_is_started_with_words_not_with_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {}

    def run(command, **options):
        call.update(options, command=command)
        return type("Child", (), {"wait": lambda _: 3})()

    monkeypatch.setattr(processes.subprocess, "Popen", run)
    log = tmp_path / "logs" / "a.log"
    code = repository.run_experiment("a", ["x.y=; rm -rf ."], "compare", log, tmp_path / "work")
    assert code == 3
    assert call["command"][1:] == [
        "-m",
        "dvc",
        "exp",
        "run",
        "--temp",
        "--name",
        "a",
        "-S",
        "x.y=; rm -rf .",
        "compare",
    ]
    assert "shell" not in call
    assert call["env"]["SPLATFIX_WORK"] == str(tmp_path / "work")


def test_reference_that_a_stopped_experiment_was_writing_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    older, newer = (Path(".git/refs/exps", one, "stash.lock") for one in ("a", "b"))
    for one in (older, newer):
        one.parent.mkdir(parents=True)
    older.touch()
    os.utime(older, (0, 0))

    def stopped(*_: object) -> int:
        newer.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(repository, "run_interruptibly", stopped)
    with pytest.raises(KeyboardInterrupt):
        repository.run_experiment("x", [], "compare", Path("x.log"), Path("work"))
    assert (older.exists(), newer.exists()) == (True, False)


def test_method_and_number_of_repeats_are_judged_before_anything_runs(params: Params) -> None:
    with pytest.raises(UserError, match=r"one of study\.methods") as raised:
        ablate.require_method("tuned-pst", ("none", "tuned-post"))
    assert raised.value.hint == "did you mean tuned-post?"
    ablate.require_method(None, ("none",))
    with pytest.raises(UserError, match="0 or more"):
        repeats([], params, -1)
