from typing import Any

import pytest

from stages.run.errors import UserError
from stages.run.methods import METHODS
from stages.scenes.config import SceneEntry
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.guard import judge
from stages.scenes.study.identity import group_of
from stages.scenes.study.roles import NO_RESERVE

# The split of the memo's V0, written out once more so that no edit of params.yaml goes unseen.
TUNING = ("hi4d_pair00_dance", "hi4d_pair01_talk")
INTERNAL = ("hi4d_pair02_dance",)
RESERVED = (
    "hi4d_pair15_fight",
    "hi4d_pair16_jump",
    "hi4d_pair17_dance",
    "hi4d_pair19_piggyback",
)
V0 = StudyConfig(
    version="v0",
    objective="a",
    hypothesis="b",
    scenes=TUNING + INTERNAL + RESERVED,
    tuning_scenes=TUNING,
    internal_eval_scenes=INTERNAL,
    downstream_scenes=RESERVED,
    reserved_scenes=RESERVED,
    evaluated_scenes=INTERNAL + RESERVED,
    methods=("none",),
    fixers=(),
    subject="none",
    key_decisions=(),
    expected_outputs=(),
    out_of_scope=(),
)
CATALOGUE = (*V0.scenes, "hi4d_pair15_hug", "hi4d_pair00_hug", "hi4d_pair03_hug", "dog", "cat")
ENTRY = SceneEntry(source="hi4d", source_cameras=("4",), target_cameras=("28",))
GROUPS = {name: name[5:11] if name.startswith("hi4d") else name for name in CATALOGUE}


def errors_of(groups: dict[str, str] = GROUPS, **changed: Any) -> list[str]:
    """First line of every error of V0 with some values changed."""
    verdict = judge(V0.model_copy(update=changed), groups)
    return [str(error).splitlines()[0] for error in verdict.errors]


def test_v0_passes_without_a_word() -> None:
    verdict = judge(V0, GROUPS)
    assert (verdict.errors, verdict.notes) == ((), ())
    verdict.enforce()


@pytest.mark.parametrize("role", ["tuning_scenes", "internal_eval_scenes"])
def test_reserved_scene_is_refused_where_anything_is_learnt(role: str) -> None:
    assert errors_of(**{role: (*getattr(V0, role), "hi4d_pair16_jump")}) == [
        f"study.{role}.{len(getattr(V0, role))}: hi4d_pair16_jump is reserved"
    ]


@pytest.mark.parametrize("role", ["tuning_scenes", "internal_eval_scenes"])
def test_another_action_of_a_reserved_pair_is_refused(role: str) -> None:
    names = ("hi4d_pair15_hug",)
    assert errors_of(**{role: names}) == [
        f"study.{role}.0: hi4d_pair15_hug shows pair15, as the reserved hi4d_pair15_fight does"
    ]


def test_reserved_pair_is_refused_even_if_it_is_not_evaluated() -> None:
    errors = errors_of(
        tuning_scenes=("hi4d_pair15_hug",),
        downstream_scenes=("hi4d_pair16_jump",),
        evaluated_scenes=("hi4d_pair16_jump",),
        scenes=("hi4d_pair16_jump",),
    )
    assert len(errors) == 1
    assert "shows pair15" in errors[0]


def test_people_are_the_pair_in_the_name_or_what_the_entry_says() -> None:
    assert group_of("hi4d_pair15_fight", "") == "pair15"
    assert group_of("hi4d_pair15_fight", "troupe") == "troupe"
    assert group_of("my_pair15_fight", "") == "pair15"
    assert group_of("a dog", " ") == "a dog"


def test_group_of_the_catalogue_counts_not_the_name() -> None:
    groups = GROUPS | {"dog": "pair15"}
    assert len(errors_of(groups, tuning_scenes=("dog",))) == 1
    assert errors_of(tuning_scenes=("dog",)) == []


def test_internal_eval_pair_among_the_tuning_pairs_is_refused() -> None:
    assert errors_of(internal_eval_scenes=("hi4d_pair00_hug",)) == [
        "study.internal_eval_scenes.0: hi4d_pair00_hug shows pair00, "
        "as hi4d_pair00_dance in `study.tuning_scenes` does"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("tuning_scenes", "internal_eval_scenes"),
        ("tuning_scenes", "downstream_scenes"),
        ("internal_eval_scenes", "downstream_scenes"),
    ],
)
def test_scene_in_two_roles_is_refused(first: str, second: str) -> None:
    lists = {first: ("dog",), second: ("cat", "dog")}
    evaluated = (*V0.evaluated_scenes, "cat", "dog")
    errors = errors_of(**lists, evaluated_scenes=evaluated, scenes=(*V0.scenes, "cat", "dog"))
    assert errors == [f"study.{second}.1: dog is also in `study.{first}`"]


def test_downstream_pair_that_is_not_reserved_may_not_be_tuned_on() -> None:
    errors = errors_of(
        scenes=("hi4d_pair00_hug",),
        evaluated_scenes=("hi4d_pair00_hug",),
        downstream_scenes=("hi4d_pair00_hug",),
    )
    assert len(errors) == 1
    assert errors[0].startswith("study.downstream_scenes.0: hi4d_pair00_hug shows pair00")


@pytest.mark.parametrize("name", ["mean", "study", "verdict"])
def test_keys_of_results_are_no_scenes(name: str) -> None:
    (error,) = errors_of(GROUPS | {name: name})
    assert error.startswith(f"scenes.{name}: a scene cannot be called {name}")


def test_methods_without_a_reference_are_refused() -> None:
    alone = {"methods": ("base-post",), "fixers": ("base",), "subject": "base-post"}
    (error,) = errors_of(**alone)
    assert "nothing that the subject base-post is compared with" in error
    (error,) = errors_of(**alone, seeds=(1,))
    assert error == "study.methods: no none, and study.seeds is not empty"
    tuned = {"methods": ("base-post", "tuned-post"), "fixers": ("base", "tuned")}
    assert errors_of(**tuned, subject="tuned-post") == []


def test_unknown_scene_has_the_nearest_name() -> None:
    verdict = judge(V0.model_copy(update={"tuning_scenes": ("hi4d_pair00_dacne",)}), GROUPS)
    (error,) = verdict.errors
    assert str(error).splitlines()[:3] == [
        "study.tuning_scenes.0: no scene 'hi4d_pair00_dacne'",
        "expected an entry of `scenes:`",
        "did you mean hi4d_pair00_dance?",
    ]


def test_unknown_scene_of_a_reserved_pair_is_recognised() -> None:
    errors = errors_of(tuning_scenes=("hi4d_pair15_kiss",))
    assert len(errors) == 2
    assert "shows pair15" in errors[1]


def test_hi4d_name_without_a_readable_pair_is_refused() -> None:
    name = "hi4d_fight_take2"
    (error,) = errors_of(GROUPS | {name: name}, tuning_scenes=(name,))
    assert "does not say which people it shows" in error
    (error,) = errors_of(GROUPS | {name: "pair15"}, tuning_scenes=(name,))
    assert "shows pair15" in error


def test_name_that_stands_twice_is_refused() -> None:
    assert errors_of(tuning_scenes=(TUNING[0], TUNING[0])) == [
        "study.tuning_scenes.0: hi4d_pair00_dance is listed 2 times"
    ]


def test_evaluated_scene_must_be_prepared_and_downstream_scene_evaluated() -> None:
    assert errors_of(scenes=V0.scenes[:-1]) == [
        "study.evaluated_scenes.4: hi4d_pair19_piggyback is not in `study.scenes`"
    ]
    assert errors_of(evaluated_scenes=V0.evaluated_scenes[:-1]) == [
        "study.downstream_scenes.3: hi4d_pair19_piggyback is not in `study.evaluated_scenes`"
    ]


def test_scenes_of_the_tuning_may_be_left_out_while_nothing_is_tuned() -> None:
    left = INTERNAL + RESERVED
    assert errors_of(scenes=left) == []
    verdict = judge(V0.model_copy(update={"scenes": left}), GROUPS)
    assert verdict.notes == (
        "tuning scenes that `study.scenes` leaves out: hi4d_pair00_dance, hi4d_pair01_talk",
    )
    errors = errors_of(scenes=left, methods=("none", "tuned-post"), fixers=("tuned",))
    assert [line for line in errors if "`study.scenes`" in line] == [
        "study.tuning_scenes.0: hi4d_pair00_dance is not in `study.scenes`",
        "study.tuning_scenes.1: hi4d_pair01_talk is not in `study.scenes`",
    ]


def test_tuned_method_needs_scenes_in_both_learning_roles() -> None:
    empty = {"tuning_scenes": (), "internal_eval_scenes": ()}
    assert errors_of(**empty) == []
    errors = errors_of(**empty, methods=("none", "tuned-post"), fixers=("tuned",))
    assert [line for line in errors if "empty" in line] == [
        "study.tuning_scenes: empty",
        "study.internal_eval_scenes: empty",
    ]


@pytest.mark.parametrize("key", ["scenes", "evaluated_scenes", "downstream_scenes", "methods"])
def test_empty_list_that_leaves_nothing_to_compare_is_refused(key: str) -> None:
    assert f"study.{key}: empty" in errors_of(**{key: ()})


def test_unknown_method_and_subject_have_the_nearest_name() -> None:
    study = V0.model_copy(update={"methods": ("none", "tuned-pots"), "subject": "nine"})
    method, subject = judge(study, GROUPS).errors
    assert method.hint == "did you mean tuned-post?"
    assert subject.hint == "did you mean none?"


@pytest.mark.parametrize("method", METHODS[1:])
def test_fixers_are_those_that_methods_need(method: str) -> None:
    fixer = method.partition("-")[0]
    assert errors_of(methods=("none", method)) == ["study.fixers: empty"]
    assert errors_of(methods=("none", method), fixers=(fixer,)) == []
    (left,) = judge(V0.model_copy(update={"fixers": (fixer,)}), GROUPS).errors
    assert (left.where, left.got) == ("study.fixers", fixer)
    assert left.fix == "set study.fixers=[]"


def test_subject_must_be_computed() -> None:
    assert errors_of(subject="tuned-post") == [
        "study.subject: 'tuned-post' is not in `study.methods`"
    ]


def test_all_errors_are_reported_at_once_with_locations() -> None:
    study = V0.model_copy(update={"tuning_scenes": (RESERVED[0],), "subject": "x"})
    verdict = judge(study, GROUPS, where=lambda keys: "line of " + "/".join(map(str, keys)))
    with pytest.raises(UserError) as caught:
        verdict.enforce()
    assert "line of study/tuning_scenes/0: " in str(caught.value)
    assert "line of study/subject: " in str(caught.value)


def test_evaluating_a_tuning_scene_is_noted() -> None:
    study = V0.model_copy(update={"evaluated_scenes": (*V0.evaluated_scenes, TUNING[0])})
    (note,) = judge(study, GROUPS).notes
    assert note.endswith("hi4d_pair00_dance")


def test_hash_changes_with_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    first = judge(V0, GROUPS).hash
    monkeypatch.setattr("stages.scenes.study.roles.RULES", "other rules")
    assert judge(V0, GROUPS).hash != first


def test_hash_names_the_split_and_nothing_else() -> None:
    first = judge(V0, GROUPS).hash
    assert len(first) == 64
    same = {"version": "v1", "tuning_scenes": TUNING[::-1], "objective": "c", "subject": "x"}
    assert judge(V0.model_copy(update=same), GROUPS).hash == first
    for changed in ({"tuning_scenes": TUNING[:1]}, {"reserved_scenes": RESERVED[:3]}):
        assert judge(V0.model_copy(update=changed), GROUPS).hash != first
    swapped = {"tuning_scenes": INTERNAL, "internal_eval_scenes": TUNING}
    assert judge(V0.model_copy(update=swapped), GROUPS).hash != first
    assert judge(V0, GROUPS | {"hi4d_pair00_dance": "pair99"}).hash != first


SPELLINGS = (
    "Hi4D_pair15_fight",
    "HI4D_PAIR15_HUG",
    "pair15_hug",
    "hi4d-pair15-hug",
    "HI4Dpair15hug",
    "hi4d_pair015_hug",
    "my_pair15_fight",
    "hi4d_\uff50air1\uff15",
    "hi4d_pair\u200b15_hug",
)


@pytest.mark.parametrize("role", ["tuning_scenes", "internal_eval_scenes"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_reserved_pair_is_recognised_in_every_spelling(role: str, name: str) -> None:
    (error,) = errors_of(GROUPS | {name: group_of(name, ENTRY.group)}, **{role: (name,)})
    reasons = ("shows pair15", "is reserved, as hi4d_pair15_fight")
    assert error.startswith(f"study.{role}.0: {name} ")
    assert any(reason in error for reason in reasons)


@pytest.mark.parametrize("group", ["PAIR15", "pair15 ", "Pair_015", "PAIR-15", "hi4d pair 15"])
def test_reserved_pair_is_recognised_in_every_spelling_of_a_group(group: str) -> None:
    (error,) = errors_of(GROUPS | {"dog": group}, tuning_scenes=("dog",))
    assert "dog shows pair15, as the reserved hi4d_pair15_fight does" in error


def test_number_of_a_pair_is_a_number() -> None:
    assert len(errors_of(GROUPS | {"dog": "pair2"}, tuning_scenes=("dog",))) == 1
    assert errors_of(GROUPS | {"dog": "pair150"}, tuning_scenes=("dog",)) == []


def test_group_that_contradicts_the_name_is_refused_with_its_fix() -> None:
    verdict = judge(
        V0.model_copy(update={"tuning_scenes": ("hi4d_pair15_hug",)}),
        GROUPS | {"hi4d_pair15_hug": "pair40"},
    )
    assert [str(error) for error in verdict.errors] == [
        "scenes.hi4d_pair15_hug.group: "
        "the name hi4d_pair15_hug says pair15, its group says pair40\n"
        "expected the same people in both\n"
        "fix: set `group: pair15` or leave it out; "
        "or rename the scene after the people that it shows"
    ]
    (error,) = errors_of(GROUPS | {"hi4d_pair40_pair15_hug": "pair40"})
    assert "contains pair40 and pair15" in error
    assert errors_of(GROUPS | {"hi4d_pair15_hug": "PAIR-015"}) == []


def test_scene_of_two_spellings_is_one_scene() -> None:
    groups = GROUPS | {"Dog": "Dog", "d_o_g": "d_o_g"}
    errors = errors_of(groups, tuning_scenes=("dog",), internal_eval_scenes=("Dog",))
    assert errors == ["study.internal_eval_scenes.0: Dog is also in `study.tuning_scenes`, as dog"]
    assert errors_of(groups, tuning_scenes=("dog", "d_o_g")) == [
        "study.tuning_scenes.1: d_o_g is dog in another spelling"
    ]
    (error,) = errors_of(groups, tuning_scenes=("Dog",), reserved_scenes=("dog",))
    assert error == "study.tuning_scenes.0: Dog is reserved, as dog"


def test_empty_reserve_is_said() -> None:
    verdict = judge(V0.model_copy(update={"reserved_scenes": ()}), GROUPS)
    assert verdict.errors == ()
    assert verdict.notes == (NO_RESERVE,)
