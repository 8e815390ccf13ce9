"""The lists of params.yaml that dvc.yaml fans out over, judged as they stand there.

Each item becomes a folder of DVC's, which is removed before a stage runs. So what goes through
DVC looks at them first: `check`, `plan`, `submit` and `ablate`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.run.errors import UserError, raise_all
from stages.run.settings.names import is_name, what_names_are
from stages.run.settings.params import CHECK, Params

# Whose raw data a stage makes: data/raw/<name>.
_MADE = (("demo", "scenes"), ("demo_capture", "captures"), ("static_demo", "scenes"))
_SCENES = (
    "scenes", "tuning_scenes", "internal_eval_scenes", "downstream_scenes", "evaluated_scenes",
)  # fmt: skip
# Lists whose items are data of their own: each has its place in data/raw.
DATA = (
    *_MADE, *(("study", key) for key in _SCENES), ("capture_study", "captures"),
    ("capture_study", "evaluated"), ("static", "scenes"),
)  # fmt: skip
LISTS = (*DATA, ("study", "fixers"), ("capture_study", "variants"), ("static", "cameras"))
SEEDS = ("study", "seeds")
CATALOGUES = ("scenes", "captures")

Place = tuple[str, str, int] | tuple[str, str]


def require_names(params: Params) -> None:
    """Raise every item that is no name, or that would share its folder with another."""
    raise_all([*_unfit(params), *collisions(params)])


def collisions(params: Params) -> Iterator[UserError]:
    """Names that stand in a list twice, that two stages make, or that differ by case alone."""
    for keys in DATA:
        names = [value for _, value in _items(params, keys)]
        for name in dict.fromkeys(filter(is_name, names)):
            # Those of the study are judged with its other rules.
            if names.count(name) > 1 and keys[0] != "study":
                at = params.where((*keys, names.index(name)))
                yield UserError(at, f"{name} stands here {names.count(name)} times", fix=CHECK)
    yield from _made_twice(params)
    yield from _alike(params)


def _unfit(params: Params) -> Iterator[UserError]:
    for keys in LISTS:
        for at, value in _items(params, keys):
            if not is_name(value):
                expected = what_names_are(value)
                yield UserError(params.where(at), f"got {value!r}", expected=expected, fix=CHECK)
    for at, value in _items(params, SEEDS):
        if type(value) is not int or value < 0:
            yield UserError(
                params.where(at), f"got {value!r}", expected="a whole number from 0 on", fix=CHECK
            )
    for catalogue in CATALOGUES:
        yield from params.unnamed(catalogue)


def _made_twice(params: Params) -> Iterator[UserError]:
    makers: dict[str, str] = {}
    for keys in _MADE:
        once = {name: at for at, name in reversed(_items(params, keys)) if is_name(name)}
        for name, at in reversed(once.items()):
            evaluation = (f"{name}_eval",) if keys[0] == "demo_capture" else ()
            for folder in (name, *evaluation):
                maker = makers.setdefault(folder, f"{name} of {'.'.join(keys)}")
                if maker != f"{name} of {'.'.join(keys)}":
                    yield UserError(
                        params.where(at), f"data/raw/{folder} is made for {maker} already",
                        expected="another name", fix=CHECK,
                    )  # fmt: skip


def _alike(params: Params) -> Iterator[UserError]:
    """Some file systems do not tell `Room` from `room`; one folder would be both."""
    found: dict[str, str] = {}
    catalogued = [((part, key), key) for part in CATALOGUES for key in _entries(params, part)]
    for at, name in [*catalogued, *(item for keys in DATA for item in _items(params, keys))]:
        if is_name(name):
            other = found.setdefault(name.lower(), name)
            if other != name:
                yield UserError(
                    params.where(at), f"{name} differs from {other} by case alone",
                    expected="one spelling, or another name", fix=CHECK,
                )  # fmt: skip


def _entries(params: Params, catalogue: str) -> list[Any]:
    entries = params.raw.get(catalogue)
    return list(entries) if isinstance(entries, Mapping) else []


def _items(params: Params, keys: tuple[str, str]) -> list[tuple[Place, Any]]:
    """Items of a list with their places; one value in its place counts as an item."""
    section = params.raw.get(keys[0])
    found = section.get(keys[1], []) if isinstance(section, Mapping) else []
    if not isinstance(found, list | tuple):
        return [(keys, found)]
    return [((*keys, index), value) for index, value in enumerate(found)]
