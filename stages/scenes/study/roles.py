"""Roles of scenes (tuning, internal evaluation, downstream, reserved) and the rules about them.

Names are not enough: another action of a reserved pair shows the same people in the same rig.
So scenes are compared by name and by group (`identity.group_of`), both in any spelling. This module
reads no other key of the study, so that its users depend on the roles alone.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from stages.run.errors import UserError, raise_all
from stages.run.files import text_hash
from stages.scenes.study.identity import group_in_name, normalised_name, pairs_in, people

# Changes with the meaning of the rules, so that old verdicts become invalid.
RULES = "one role a scene, one role a group, reserved groups downstream only, by identity: 2"
ROLES = ("tuning_scenes", "internal_eval_scenes", "downstream_scenes")
LEARNING_ROLES = ROLES[:2]
# Of these roles, the lists of samples that another program wrote.
IMPORTS = {"tuning_scenes": "tuning_imports", "internal_eval_scenes": "internal_eval_imports"}
RESERVED = "reserved_scenes"
NO_RESERVE = "study.reserved_scenes is empty: nobody is kept out of the tuning for good"

Names = tuple[str, ...]
Where = Callable[[tuple[str | int, ...]], str]


@dataclass(frozen=True)
class Verdict:
    """Result of the leak guard; `hash` identifies the roles and images that it checked."""

    errors: tuple[UserError, ...]
    notes: tuple[str, ...]
    groups_by_role: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    content: str = ""  # digest of the images that were checked, if any

    @property
    def hash(self) -> str:
        """SHA-256 of rules, scenes, groups, roles and images, regardless of the order in lists."""
        images = [self.content] if self.content else []
        return text_hash(RULES, json.dumps(self.groups_by_role), *images)

    def enforce(self) -> None:
        """Raise all errors together, if there are any."""
        raise_all(self.errors)


@dataclass(frozen=True)
class Case:
    """Lists of scenes by key of the study, and the group of every known scene and import."""

    lists: Mapping[str, Names]
    groups: Mapping[str, str]
    where: Where
    imports: Mapping[str, str] = field(default_factory=dict)  # groups, by import

    def names(self, key: str) -> Names:
        """Scenes of one list as written in the study."""
        return self.lists[key]

    def members(self, role: str) -> Names:
        """Scenes and imports of a role."""
        return self.lists[role] + self.lists.get(IMPORTS.get(role, ""), ())

    def group(self, scene: str) -> str:
        """The group of a scene or an import in its compared form."""
        known = self.imports.get(scene) or self.groups.get(scene)
        return people(known or group_in_name(scene))

    def entry(self, scene: str) -> tuple[str, str]:
        """Where the catalogue has a scene or an import."""
        return "imports" if scene in self.imports else "scenes", scene

    def spellings(self, key: str) -> dict[str, str]:
        """Scenes of one list by the compared form of their names."""
        return {normalised_name(scene): scene for scene in self.members(key)}

    def groups_of(self, key: str) -> tuple[tuple[str, str], ...]:
        """(scene, group) of one list, sorted."""
        return tuple(sorted((scene, self.group(scene)) for scene in self.members(key)))

    def at(self, key: str, scene: str | None = None) -> str:
        """The location of a list, or of a scene in it, for an error."""
        if scene is None:
            return self.where(("study", key))
        key = self.listing(key, scene)
        return self.where(("study", key, self.names(key).index(scene)))

    def listing(self, role: str, scene: str) -> str:
        """The key of the study whose list has a scene or an import of a role."""
        return role if scene in self.names(role) else IMPORTS[role]

    def by_role(self) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
        """Every role with its scenes and their groups."""
        return tuple((role, self.groups_of(role)) for role in (*ROLES, RESERVED))


def dotted(keys: tuple[str | int, ...]) -> str:
    """A location without its line: `study.tuning_scenes.1`."""
    return ".".join(map(str, keys))


def judge_roles(case: Case) -> list[UserError]:
    """Errors for scenes and groups in roles that they may not have."""
    return [*contradicted(case), *reserved(case), *shared(case)]


def notes_on_roles(case: Case) -> list[str]:
    """Notes that are no errors but matter for the interpretation of results."""
    return [] if case.names(RESERVED) else [NO_RESERVE]


def contradicted(case: Case) -> Iterator[UserError]:
    """Errors for scenes whose name contradicts their `group` or contains two pairs."""
    listed = itertools.chain(*(case.members(key) for key in (*ROLES, RESERVED)))
    for scene in dict.fromkeys((*case.groups, *case.imports, *listed)):
        pairs = pairs_in(scene)
        if len(pairs) > 1:
            yield UserError(
                case.where(case.entry(scene)),
                f"the name {scene} contains {' and '.join(pairs)}",
                expected="one pair of people, or none and a `group:`",
                fix="rename the scene after the people that it shows",
            )
        elif pairs and case.group(scene) not in pairs:
            yield UserError(
                case.where((*case.entry(scene), "group")),
                f"the name {scene} says {pairs[0]}, its group says {case.group(scene)}",
                expected="the same people in both",
                fix=f"set `group: {pairs[0]}` or leave it out; "
                "or rename the scene after the people that it shows",
            )


def reserved(case: Case) -> Iterator[UserError]:
    """Errors for reserved scenes, and others of the same people, in a learning role."""
    owners = {case.group(scene): scene for scene in case.names(RESERVED)}
    spellings = case.spellings(RESERVED)
    for role in LEARNING_ROLES:
        for scene in dict.fromkeys(case.members(role)):
            group, other = case.group(scene), spellings.get(normalised_name(scene))
            if other:
                got = f"{scene} is reserved" + ("" if other == scene else f", as {other}")
            elif group in owners:
                got = f"{scene} shows {group}, as the reserved {owners[group]} does"
            else:
                continue
            yield UserError(
                case.at(role, scene),
                got,
                expected="scenes of people who are in no reserved scene",
                fix=f"remove it from `study.{case.listing(role, scene)}`",
            )


def shared(case: Case) -> Iterator[UserError]:
    """Errors for scenes and groups in two roles."""
    reserved_groups = {case.group(scene) for scene in case.names(RESERVED)}
    for first, second in itertools.combinations(ROLES, 2):
        owners = {case.group(scene): scene for scene in case.members(first)}
        for scene in dict.fromkeys(case.members(second)):
            group = case.group(scene)
            # A reserved group in a learning role is reported by `reserved`.
            if group not in owners or group in reserved_groups:
                continue
            other = case.spellings(first).get(normalised_name(scene))
            spelling = "" if other == scene else f", as {other}"
            one, two = case.listing(first, other or owners[group]), case.listing(second, scene)
            yield UserError(
                case.at(second, scene),
                f"{scene} is also in `study.{one}`{spelling}"
                if other
                else f"{scene} shows {group}, as {owners[group]} in `study.{one}` does",
                expected="each scene and each group of people in one role",
                fix=f"remove one of them from `study.{one}` or `study.{two}`",
            )
