"""What a study may not do: learn from what it is measured on.

Names are not enough: another action of a reserved pair shows the same people in the same rig.
So scenes are compared by group (`SceneEntry.group_of`). What images hold is in `leaks`.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from stages.run.errors import UserError, raise_all
from stages.run.files import text_hash
from stages.run.params import CHECK, did_you_mean
from stages.scenes.config import group_in_name
from stages.scenes.study import BUILT_METHODS, METHODS, StudyConfig, needs_tuning

# Changes with the meaning of the rules, so that old verdicts do not pass for new ones.
RULES = "one role a scene, one role a group, reserved groups downstream only: 1"
ROLES = ("tuning_scenes", "internal_eval_scenes", "downstream_scenes")
LEARNING_ROLES = ROLES[:2]
_SCENE_LISTS = ("scenes", *ROLES, "reserved_scenes", "evaluated_scenes")

Where = Callable[[tuple[str | int, ...]], str]


@dataclass(frozen=True)
class Verdict:
    """What the guard found about one study; `hash` names the split that it judged."""

    errors: tuple[UserError, ...]
    notes: tuple[str, ...]
    groups_by_role: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

    @property
    def hash(self) -> str:
        """SHA-256 of rules, scenes, groups and roles; the order of a list does not count."""
        return text_hash(RULES, json.dumps(self.groups_by_role))

    def enforce(self) -> None:
        """Raise every error at once, if there is one."""
        raise_all(self.errors)


def judge(study: StudyConfig, groups: Mapping[str, str], where: Where | None = None) -> Verdict:
    """Judge a study before anything is computed.

    `groups` maps every scene of the catalogue to its group; `where` names the place of a key
    such as ("study", "tuning_scenes", 1), with its line when it is `Params.where`.
    """
    case = _Case(study, groups, where or _dotted)
    rules = (_unknown, _repeated, _reserved, _shared, _selected, _needed, _methods)
    roles = tuple((role, case.groups_of(role)) for role in (*ROLES, "reserved_scenes"))
    errors = tuple(itertools.chain.from_iterable(rule(case) for rule in rules))
    return Verdict(errors, tuple(_notes(case)), roles)


def _dotted(keys: tuple[str | int, ...]) -> str:
    return ".".join(map(str, keys))


@dataclass(frozen=True)
class _Case:
    study: StudyConfig
    groups: Mapping[str, str]
    where: Where

    def names(self, key: str) -> tuple[str, ...]:
        return getattr(self.study, key)

    def group(self, scene: str) -> str:
        return self.groups.get(scene) or group_in_name(scene)

    def groups_of(self, key: str) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((scene, self.group(scene)) for scene in self.names(key)))

    def at(self, key: str, scene: str | None = None) -> str:
        item = () if scene is None else (self.names(key).index(scene),)
        return self.where(("study", key, *item))

    @property
    def tuned(self) -> bool:
        return any(needs_tuning(method) for method in self.study.methods)


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
                    fix=f"mend the name, or add `{scene}:` to `scenes:`",
                )
            elif case.group(scene) == scene and scene.startswith("hi4d_"):
                yield UserError(
                    case.at(key, scene),
                    f"{scene!r} does not say which people it shows",
                    expected="hi4d_pairPP_action",
                    fix=f"rename it, or add `group: pairPP` to `scenes.{scene}`",
                )


def _repeated(case: _Case) -> Iterator[UserError]:
    for key in (*_SCENE_LISTS, "methods"):
        names = case.names(key)
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                yield UserError(
                    case.at(key, name), f"{name} stands here {names.count(name)} times", fix=CHECK
                )


def _reserved(case: _Case) -> Iterator[UserError]:
    owners = {case.group(scene): scene for scene in case.study.reserved_scenes}
    for role in LEARNING_ROLES:
        for scene in dict.fromkeys(case.names(role)):
            group = case.group(scene)
            if scene in case.study.reserved_scenes:
                got = f"{scene} is reserved"
            elif group in owners:
                got = f"{scene} shows {group}, as the reserved {owners[group]} does"
            else:
                continue
            yield UserError(
                case.at(role, scene),
                got,
                expected="scenes of people who are in no reserved scene",
                fix=f"take it out of `study.{role}`",
            )


def _shared(case: _Case) -> Iterator[UserError]:
    reserved = {case.group(scene) for scene in case.study.reserved_scenes}
    for first, second in itertools.combinations(ROLES, 2):
        owners = {case.group(scene): scene for scene in case.names(first)}
        for scene in dict.fromkeys(case.names(second)):
            group = case.group(scene)
            # A reserved group in a learning role is reported there.
            if group not in owners or group in reserved:
                continue
            same = scene in case.names(first)
            yield UserError(
                case.at(second, scene),
                f"{scene} is also in `study.{first}`"
                if same
                else f"{scene} shows {group}, as {owners[group]} in `study.{first}` does",
                expected="each scene and each group of people in one role",
                fix=f"take one of them out of `study.{first}` or `study.{second}`",
            )


def _selected(case: _Case) -> Iterator[UserError]:
    chosen = [("evaluated_scenes", "scenes"), ("downstream_scenes", "evaluated_scenes")]
    if case.tuned:
        chosen += [(role, "scenes") for role in LEARNING_ROLES]
    for key, within in chosen:
        for scene in dict.fromkeys(case.names(key)):
            # One that is not in the catalogue is reported as such.
            if scene in case.groups and scene not in case.names(within):
                yield UserError(
                    case.at(key, scene),
                    f"{scene} is not in `study.{within}`",
                    expected=f"scenes of `study.{within}`",
                    fix=f"add it there, or take it out of `study.{key}`",
                )


def _needed(case: _Case) -> Iterator[UserError]:
    needed = ["scenes", "evaluated_scenes", "downstream_scenes", "methods"]
    needed += LEARNING_ROLES if case.tuned else ()
    for key in needed:
        if not case.names(key):
            reason = " for a tuned method" if key in LEARNING_ROLES else ""
            yield UserError(case.at(key), "empty", expected=f"at least one name{reason}", fix=CHECK)


def _methods(case: _Case) -> Iterator[UserError]:
    for method in dict.fromkeys(case.study.methods):
        if method not in METHODS:
            yield UserError(
                case.at("methods", method),
                f"no method {method!r}",
                expected=f"one of {', '.join(METHODS)}",
                hint=did_you_mean(method, list(METHODS)),
                fix=CHECK,
            )
        elif method not in BUILT_METHODS:
            yield UserError(
                case.at("methods", method),
                f"{method} needs the fixer, which this version cannot run",
                expected=f"one of {', '.join(BUILT_METHODS)}",
                fix="take it out of `study.methods`",
            )
    if case.study.methods and case.study.subject not in case.study.methods:
        yield UserError(
            case.at("subject"),
            f"{case.study.subject!r} is not in `study.methods`",
            expected=f"one of {', '.join(case.study.methods)}",
            hint=did_you_mean(case.study.subject, list(case.study.methods)),
            fix=CHECK,
        )


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
    seen = [scene for scene in case.study.evaluated_scenes if scene in case.study.tuning_scenes]
    if seen:
        yield f"evaluated scenes that DiFix is tuned on, no measure of success: {', '.join(seen)}"
