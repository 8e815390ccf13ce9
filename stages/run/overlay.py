"""Values of one YAML file laid over params.yaml, whose comments and layout stay as they are.

Lines of a changed value are replaced in the text, so that everything else keeps its bytes. A
whole-file dump would not: it moves or drops the comments that follow a list.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from stages.run.errors import UserError, raise_all
from stages.run.params import Params, did_you_mean

Keys = tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One key of params.yaml with its value before and after."""

    keys: Keys
    old: Any
    new: Any


def changes(params: Params, overlay: Params) -> list[Change]:
    """What an overlay would change, in its own order.

    Raises UserError for every key that params.yaml lacks: an overlay gives values, not keys.
    """
    found: list[Change] = []
    errors: list[UserError] = []
    for keys, new in _leaves(overlay.raw):
        old = _lookup(params.raw, keys)
        if isinstance(old, UserError):
            errors.append(UserError(overlay.where(keys), old.got, hint=old.hint, fix=old.fix))
        elif isinstance(old, Mapping):
            errors.append(
                UserError(overlay.where(keys), repr(new), expected=f"keys: {', '.join(old)}")
            )
        elif type(old) is not type(new) or old != new:
            found.append(Change(keys, old, new))
    raise_all(errors)
    return found
