"""The leak guard: a study may not tune on what it is measured on, nor refer to missing scenes.

Rules about roles are in `roles`, checks of the images in stages/samples/leaks.py.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stages.run.errors import UserError
from stages.run.methods import FIXERS, METHODS, PLAIN, TUNED, Method, methods_of
from stages.run.missing_methods import no_plain_for_seeds, no_reference
from stages.run.settings.params import bad_value, did_you_mean
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.identity import normalised_name, people
from stages.scenes.study.roles import (
    IMPORTS,
    LEARNING_ROLES,
    RESERVED,
    ROLES,
    Case,
    Verdict,
    Where,
    contradicted,
    dotted,
    notes_on_roles,
    reserved,
    shared,
)

_SCENE_LISTS = ("scenes", *ROLES, RESERVED, "evaluated_scenes")
_OTHER_LISTS = ("methods", "fixers", "seeds", *IMPORTS.values())
# Keys beside those of scenes in metrics/subject.json and metrics/delta.json.
_TAKEN = ("mean", "study", "verdict")


def judge(
    study: StudyConfig,
    groups: Mapping[str, str],
    where: Where | None = None,
    imports: Mapping[str, str] | None = None,
) -> Verdict:
    """Check a study before anything is computed.

    `groups` maps every scene of the catalogue to its group, `imports` every import; `where` gives
    the location of a key such as ("study", "tuning_scenes", 1): `Params.where`, or without line
    numbers by default.
    """
    lists = {key: getattr(study, key) for key in (*_SCENE_LISTS, *_OTHER_LISTS)}
    case = _Case(lists, groups, where or dotted, imports or {}, study=study)
    rules = _unknown, _repeated, contradicted, reserved, shared, _unselected, _empty, _methods
    rules += (_taken, _references)
    errors = tuple(itertools.chain.from_iterable(rule(case) for rule in rules))
    return Verdict(errors, tuple(_notes(case)), case.by_role())


@dataclass(frozen=True, kw_only=True)
class _Case(Case):
    study: StudyConfig

    @property
    def tuned(self) -> bool:
        return bool(methods_of(TUNED, self.study.methods))


def _unknown(case: _Case) -> Iterator[UserError]:
    known = list(case.groups)
    for key in _SCENE_LISTS:
        for scene in dict.fromkeys(case.names(key)):
            if scene not in case.groups:
                yield UserError(
                    case.at(key, scene),
                    f"no scene {scene!r}",
                    expected="an entry of `scenes:`",
                    hint=did_you_mean(scene, known),
                    fix=f"correct the name, or add `{scene}:` to `scenes:`",
                )
            elif case.group(scene) == people(scene) == normalised_name(scene) and _from_hi4d(scene):
                yield UserError(
                    case.at(key, scene),
                    f"{scene!r} does not say which people it shows",
                    expected="hi4d_pairPP_action",
                    fix=f"rename it, or add `group: pairPP` to `scenes.{scene}`",
                )
    for key in IMPORTS.values():
        for name in dict.fromkeys(case.names(key)):
            if name not in case.imports:
                yield UserError(
                    case.at(key, name),
                    f"no import {name!r}",
                    expected="an entry of `imports:`",
                    hint=did_you_mean(name, list(case.imports)),
                    fix=f"correct the name, or add `{name}:` to `imports:`",
                )


def _taken(case: _Case) -> Iterator[UserError]:
    for scene in case.groups:
        if scene in _TAKEN:
            yield UserError(
                case.where(("scenes", scene)),
                f"a scene cannot be called {scene}: results have this key for something else",
                expected=f"another name than {', '.join(_TAKEN)}",
                fix="rename the scene here and in `study:`",
            )


def _from_hi4d(scene: str) -> bool:
    return normalised_name(scene).startswith("hi4d")


def _repeated(case: _Case) -> Iterator[UserError]:
    for key in (*_SCENE_LISTS, *_OTHER_LISTS):
        for name, count in Counter(case.names(key)).items():
            if count > 1:
                yield bad_value(case.at(key, name), f"{name} is listed {count} times")
    for key in _SCENE_LISTS:
        known: dict[str, str] = {}  # scenes by the compared form of their names
        for scene in dict.fromkeys(case.names(key)):
            first = known.setdefault(normalised_name(scene), scene)
            if first != scene:
                got = f"{scene} is {first} in another spelling"
                yield bad_value(case.at(key, scene), got, expected="each scene once")


def _unselected(case: _Case) -> Iterator[UserError]:
    chosen = [("evaluated_scenes", "scenes"), ("downstream_scenes", "evaluated_scenes")]
    if case.tuned:
        chosen += [(role, "scenes") for role in LEARNING_ROLES]
    for key, within in chosen:
        selected = set(case.names(within))
        for scene in dict.fromkeys(case.names(key)):
            # Scenes that are not in the catalogue are reported as such.
            if scene in case.groups and scene not in selected:
                yield UserError(
                    case.at(key, scene),
                    f"{scene} is not in `study.{within}`",
                    expected=f"scenes of `study.{within}`",
                    fix=f"add it there, or remove it from `study.{key}`",
                )


def _empty(case: _Case) -> Iterator[UserError]:
    required = ["scenes", "evaluated_scenes", "downstream_scenes", "methods"]
    required += LEARNING_ROLES if case.tuned else ()
    for key in required:
        if not case.members(key):
            reason = " for a tuned method" if key in LEARNING_ROLES else ""
            yield bad_value(case.at(key), "empty", expected=f"at least one name{reason}")


def _methods(case: _Case) -> Iterator[UserError]:
    for method in dict.fromkeys(case.study.methods):
        if method not in METHODS:
            yield bad_value(
                case.at("methods", method),
                f"no method {method!r}",
                expected=f"one of {', '.join(METHODS)}",
                hint=did_you_mean(method, list(METHODS)),
            )
    # `fixers` repeats what `methods` says because DVC fans out over whole lists.
    known = tuple(method for method in case.study.methods if method in METHODS)
    needed = [fixer for fixer in FIXERS if methods_of(fixer, known)]
    if set(needed) != set(case.study.fixers):
        yield UserError(
            case.at("fixers"),
            ", ".join(case.study.fixers) or "empty",
            expected=f"those of `study.methods`: {', '.join(needed) or 'none'}",
            fix=f"set study.fixers=[{','.join(needed)}]",
        )
    if case.study.methods and case.study.subject not in case.study.methods:
        yield bad_value(
            case.at("subject"),
            f"{case.study.subject!r} is not in `study.methods`",
            expected=f"one of {', '.join(case.study.methods)}",
            hint=did_you_mean(case.study.subject, list(case.study.methods)),
        )


def _references(case: _Case) -> Iterator[UserError]:
    methods, subject = case.study.methods, case.study.subject
    if PLAIN in methods or not methods:
        return
    if case.study.seeds:
        yield no_plain_for_seeds(case.at("methods"))
    elif subject in methods and subject in METHODS and Method.parse(subject).untuned not in methods:
        yield no_reference(subject, case.at("methods"))


def _notes(case: _Case) -> Iterator[str]:
    unprepared = {
        "tuning": case.study.tuning_scenes,
        "internal evaluation": case.study.internal_eval_scenes,
        "reserved": case.study.reserved_scenes,
    }
    for role, names in unprepared.items():
        absent = [scene for scene in names if scene not in case.study.scenes]
        if absent:
            yield f"{role} scenes that `study.scenes` leaves out: {', '.join(absent)}"
    yield from notes_on_roles(case)
    tuned_on = [scene for scene in case.study.evaluated_scenes if scene in case.study.tuning_scenes]
    if tuned_on:
        scenes = ", ".join(tuned_on)
        yield f"evaluated scenes that DiFix is tuned on, so no measure of success: {scenes}"
