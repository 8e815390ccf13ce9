"""Arms of an ablation: every combination of values of some params, against the default.

The default is params.yaml as it is. A repeat is the default with another seed: its differences are
noise.
"""

import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import Any

from stages.run.errors import UserError, raise_all
from stages.run.files import text_hash
from stages.run.plurals import counted
from stages.run.settings.params import Params, did_you_mean, moved, plain
from stages.run.settings.readings import InvalidYaml, parse_yaml

# Judges params, as `check` does; the last of what it gives are the errors.
Judge = Callable[[Params], Sequence[Any]]
# Sections that affect the splats: their noise includes that of the training.
_BEFORE_TUNING = ("demo", "prepare", "scenes", "calibrate", "train")
_OUTSIDE_BRACKETS = re.compile(r",(?![^\[\]{}()]*[\]})])")


@dataclass(frozen=True)
class Factor:
    """A key of params.yaml and the values to try, as text in YAML."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """One experiment."""

    settings: tuple[str, ...]  # `key=value`, each differing from the default
    is_repeat: bool = False

    @property
    def label(self) -> str:
        """Its settings on one line."""
        return " ".join(self.settings)

    @property
    def values(self) -> dict[str, Any]:
        """What it sets, by dotted key."""
        pairs = (setting.partition("=")[::2] for setting in self.settings)
        return {key: _value(key, text) for key, text in pairs}

    @property
    def name(self) -> str:
        """Its name as an experiment, determined by its settings."""
        words = re.sub(
            r"[^A-Za-z0-9]+", "-", "-".join(one.partition("=")[2] for one in self.settings)
        ).strip("-")
        kind = "repeat" if self.is_repeat else "ablate"
        return f"{kind}-{words[:40]}-{text_hash(*self.settings)[:6]}"


def parse(text: str, params: Params) -> Factor:
    """`section.key=a,b,c` as a factor. Raises UserError for a key that params.yaml lacks."""
    key, equals, listed = text.partition("=")
    values = tuple(value.strip() for value in _OUTSIDE_BRACKETS.split(listed))
    if not equals or "" in values:
        raise UserError(text, "not a factor", expected="section.key=value,value")
    now = current(params, key)
    given = [_value(key, value) for value in values]
    if isinstance(now, tuple) and not any(isinstance(one, tuple) for one in given):
        several = shlex.quote(f"{key}={','.join(f'[{value}]' for value in values)}")
        one = shlex.quote(f"{key}=[{','.join(values)}]")
        together = f", or {one} for one" if len(values) > 1 else ""
        raise UserError(
            text,
            "no lists",
            expected=f"values of {key} in brackets",
            fix=f"write {several} for {counted(len(values), 'experiment')}{together}",
        )
    return Factor(key, values)


def current(params: Params, key: str) -> Any:
    """The value of a dotted key. Raises UserError when there is none."""
    node: Any = params.raw
    keys = tuple(key.split("."))
    for part in keys:
        if not isinstance(node, Mapping) or part not in node:
            known = [str(name) for name in node] if isinstance(node, Mapping) else []
            raise UserError(
                key,
                f"params.yaml has no {part!r} there",
                hint=moved(params.raw, keys) or did_you_mean(part, known),
            )
        node = node[part]
    return plain(node)


def arms(factors: Sequence[Factor], params: Params, singly: bool = False) -> list[Arm]:
    """Every combination of values except the default's; `singly` varies one factor at a time."""
    settings = [[(factor.key, value) for value in factor.values] for factor in factors]
    combined = (
        [(setting,) for of_factor in settings for setting in of_factor]
        if singly
        else itertools.product(*settings)
    )
    arms = [Arm(tuple(_differing(combination, params))) for combination in combined]
    return list(dict.fromkeys(arm for arm in arms if arm.settings))


def changed_params(params: Mapping[str, Any], arm: Arm) -> dict[str, Any]:
    """Params of a stage, by section or dotted key, with the settings of an arm.

    >>> changed_params({"difix": {"seed": 0}, "tune.lr": 1}, Arm(("difix.seed=7", "tune.steps=9")))
    {'difix': {'seed': 7}, 'tune.lr': 1}
    """
    result: dict[str, Any] = deepcopy(dict(params))
    for key, value in arm.values.items():
        for name in result:
            if key == name or name.startswith(f"{key}."):
                within = value
                for part in name.removeprefix(key).split(".")[1:]:
                    within = within.get(part) if isinstance(within, Mapping) else None
                result[name] = within
            elif key.startswith(f"{name}."):
                _set(result[name], key.removeprefix(f"{name}."), value)
    return result


def repeats(factors: Sequence[Factor], params: Params, count: int) -> list[Arm]:
    """The default with other seeds: of the tuning, and of the splats if a factor affects them.

    No seed is one that a factor tries.

    >>> from ruamel.yaml import YAML
    >>> params = Params(YAML().load("tune: {seed: 3}"), "params.yaml")
    >>> [arm.label for arm in repeats([], params, 2)]
    ['tune.seed=4', 'tune.seed=5']
    """
    if count < 0:
        raise UserError("--repeats", f"got {count}", expected="0 or more")
    sections = {factor.key.partition(".")[0] for factor in factors}
    keys = ["tune.seed"]
    keys += ["train.seed"] if sections & set(_BEFORE_TUNING) else []
    seeds = {key: current(params, key) for key in keys}
    tried = {f"{factor.key}={value}" for factor in factors for value in factor.values}
    numbered = (
        tuple(f"{key}={seed + number}" for key, seed in seeds.items())
        for number in itertools.count(1)
    )
    free = (settings for settings in numbered if not tried & set(settings))
    return [Arm(settings, is_repeat=True) for settings in itertools.islice(free, count)]


def require_valid(arms: Sequence[Arm], params: Params, judged: Judge) -> None:
    """Raise UserError for all that is wrong with the arms and not with the default.

    Called before any arm runs.
    """
    _raise_new([_changed(params, arm) for arm in arms], params, judged)


def require_valid_settings(
    texts: Sequence[str], read: Callable[..., Params], judged: Judge
) -> None:
    """The same for values that `-S` gives to an experiment; `read` is `Params.read`.

    DVC judges keys of the top level.
    """
    dotted = [text for text in texts if "." in text.partition("=")[0]]
    if dotted:
        _raise_new([read(overrides=dotted)], read(), judged)


def _raise_new(changed: Iterable[Params], default: Params, judged: Judge) -> None:
    known = {str(error) for error in judged(default)[-1]}
    every = {str(error): error for params in changed for error in judged(params)[-1]}
    raise_all(error for text, error in every.items() if text not in known)


def _changed(params: Params, arm: Arm) -> Params:
    raw = deepcopy(params.raw)
    for key, value in arm.values.items():
        _set(raw, key, value)
    changed = Params(raw, params.path)
    changed.overridden = {tuple(key.split(".")) for key in arm.values}
    return changed


def _differing(settings: Sequence[tuple[str, str]], params: Params) -> Iterator[str]:
    """Settings whose value differs from the current one as YAML, where 1e-4 is 0.0001."""
    for key, value in settings:
        if repr(_value(key, value)) != repr(current(params, key)):
            yield f"{key}={value}"


def _set(section: Any, key: str, value: Any) -> None:
    """Set the value of a dotted key."""
    *folders, last = key.split(".")
    reduce(lambda node, name: node[name], folders, section)[last] = value


def _value(key: str, text: str) -> Any:
    try:
        return plain(parse_yaml(text, "safe"))
    except InvalidYaml as error:
        raise UserError(key, repr(text), expected="a value in YAML") from error
