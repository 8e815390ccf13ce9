from pathlib import Path

import pytest

from stages.run.errors import UserError
from stages.run.methods import METHODS, methods_of
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.memo import memo

TUNING = ("hi4d_pair00_dance", "hi4d_pair01_talk")
INTERNAL = ("hi4d_pair02_dance",)
RESERVED = (
    "hi4d_pair15_fight",
    "hi4d_pair16_jump",
    "hi4d_pair17_dance",
    "hi4d_pair19_piggyback",
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study() -> StudyConfig:
    """The study that params.yaml states."""
    return Params.read(ROOT / "params.yaml").section("study", StudyConfig)


def test_default_study_is_v0_of_the_memo(study: StudyConfig) -> None:
    assert study.version == "v0"
    assert study.tuning_scenes == TUNING
    assert study.internal_eval_scenes == INTERNAL
    assert study.downstream_scenes == RESERVED
    assert study.reserved_scenes == RESERVED
    assert study.scenes == TUNING + INTERNAL + RESERVED, "the memo's order of preparation"
    assert study.evaluated_scenes == INTERNAL + RESERVED
    assert len(study.key_decisions) == 2
    assert len(study.expected_outputs) == 3


def test_reserved_scenes_are_prepared_all_the_same(study: StudyConfig) -> None:
    assert set(study.reserved_scenes) <= set(study.scenes)


def test_memo_states_every_text_and_name(study: StudyConfig) -> None:
    text = memo(study)
    for value in study.model_dump().values():
        for line in (value,) if isinstance(value, str) else value:
            # Seeds and strengths are numbers.
            assert not isinstance(line, str) or line in text
    assert "1. hi4d_pair00_dance\n2. hi4d_pair01_talk\n" in text


def test_memo_says_when_a_list_is_empty(study: StudyConfig) -> None:
    text = memo(study.model_copy(update={"out_of_scope": ()}))
    assert "## Out of scope\n\n(none)" in text


def test_methods() -> None:
    assert METHODS == ("none", "base-post", "base-distill", "tuned-post", "tuned-distill")
    assert methods_of("base", METHODS) == ("base-post", "base-distill")
    assert methods_of("none", METHODS) == ()


def test_study_without_a_hypothesis_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    start, end = text.index("  hypothesis:"), text.index("  # scenes: Scenes that are prepared")
    path = tmp_path / "params.yaml"
    path.write_text(text[:start] + "  hypothesis: ''\n" + text[end:])
    with pytest.raises(UserError, match=r"study\.hypothesis: got ''"):
        Params.read(path).section("study", StudyConfig)
