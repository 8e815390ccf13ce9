"""Checks of the lists in params.yaml that dvc.yaml fans out over.

Each item becomes a folder that DVC removes before a stage runs, so commands that call DVC check
them first: `check`, `plan`, `submit` and `ablate`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.run.errors import UserError, raise_all
from stages.run.settings.names import is_name, name_rule
from stages.run.settings.params import Params, bad_value

# Items whose raw data a stage generates: data/raw/<name>.
_GENERATED = (("demo", "scenes"), ("demo_capture", "captures"), ("static_demo", "scenes"))
_SCENES = (
    "scenes",
    "tuning_scenes",
    "internal_eval_scenes",
    "downstream_scenes",
    "evaluated_scenes",
    "tuning_imports",
    "internal_eval_imports",
)
# Lists whose items have a folder in data/raw each.
DATA = (
    *_GENERATED,
    *(("study", key) for key in _SCENES),
    ("capture_study", "captures"),
    ("capture_study", "evaluated"),
    ("static", "scenes"),
)
LISTS = (
    *DATA,
    ("study", "fixers"),
    ("capture_study", "variants"),
    ("capture_study", "fixers"),
    ("static", "cameras"),
    ("static", "fixers"),
)
SEEDS = ("study", "seeds")
CATALOGUES = ("scenes", "captures", "imports")

Place = tuple[str, str, int] | tuple[str, str]


def fans_out(key: str) -> bool:
    """Whether a dotted key of params.yaml decides which stages there are.

    >>> fans_out("study.seeds"), fans_out("difix.seed")
    (True, False)
    """
    return tuple(key.split(".")) in (*LISTS, SEEDS)


def require_names(params: Params) -> None:
    """Raise UserError for every item that is not a name or shares its folder with another."""
    raise_all([*_invalid(params), *collisions(params)])


def collisions(params: Params) -> Iterator[UserError]:
    """Errors of names that a list repeats, two stages generate, or that differ only in case."""
    for keys in DATA:
        names = [value for _, value in _items(params, keys)]
        for name in dict.fromkeys(filter(is_name, names)):
            # The study's lists are checked with its other rules.
            if names.count(name) > 1 and keys[0] != "study":
                at = params.where((*keys, names.index(name)))
                yield bad_value(at, f"{name} is listed {names.count(name)} times")
    yield from _generated_twice(params)
    yield from _same_but_case(params)
    yield from _imported_scenes(params)


def _invalid(params: Params) -> Iterator[UserError]:
    for keys in (*LISTS, SEEDS):
        for at, value in _items(params, keys):
            is_valid = _is_seed(value) if keys == SEEDS else is_name(value)
            expected = "an integer from 0 on" if keys == SEEDS else name_rule(value)
            if is_valid and at == keys:  # DVC fails on it without a message
                is_valid, expected = False, f"a list in brackets, such as [{value}]"
            if not is_valid:
                yield bad_value(params.where(at), f"got {value!r}", expected=expected)
    for catalogue in CATALOGUES:
        yield from params.unnamed(catalogue)


def _is_seed(value: Any) -> bool:
    return type(value) is int and value >= 0


def _generated_twice(params: Params) -> Iterator[UserError]:
    makers: dict[str, str] = {}
    for keys in _GENERATED:
        first = {name: at for at, name in reversed(_items(params, keys)) if is_name(name)}
        for name, at in reversed(first.items()):
            evaluation = (f"{name}_eval",) if keys[0] == "demo_capture" else ()
            for folder in (name, *evaluation):
                maker = makers.setdefault(folder, f"{name} of {'.'.join(keys)}")
                if maker != f"{name} of {'.'.join(keys)}":
                    yield bad_value(
                        params.where(at),
                        f"data/raw/{folder} is generated for {maker} already",
                        expected="another name",
                    )


def _imported_scenes(params: Params) -> Iterator[UserError]:
    """Both are read from data/raw and have their samples in data/pairs, by their name."""
    for name in _entries(params, "imports"):
        if name in _entries(params, "scenes"):
            at = params.where(("imports", name))
            yield bad_value(at, f"{name} is a scene too", expected="another name")


def _same_but_case(params: Params) -> Iterator[UserError]:
    """Some file systems treat `Room` and `room` as one folder."""
    spellings: dict[str, str] = {}
    catalogued = [((part, key), key) for part in CATALOGUES for key in _entries(params, part)]
    for at, name in [*catalogued, *(item for keys in DATA for item in _items(params, keys))]:
        if is_name(name):
            other = spellings.setdefault(name.lower(), name)
            if other != name:
                yield bad_value(
                    params.where(at),
                    f"{name} differs from {other} only in case",
                    expected="one spelling, or another name",
                )


def _entries(params: Params, catalogue: str) -> list[Any]:
    entries = params.raw.get(catalogue)
    return list(entries) if isinstance(entries, Mapping) else []


def _items(params: Params, keys: tuple[str, str]) -> list[tuple[Place, Any]]:
    """Items of a list with their positions; a single value counts as one item."""
    section = params.raw.get(keys[0])
    values = section.get(keys[1], []) if isinstance(section, Mapping) else []
    if not isinstance(values, list | tuple):
        return [(keys, values)]
    return [((*keys, index), value) for index, value in enumerate(values)]
