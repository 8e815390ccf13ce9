"""Messages about values of params.yaml are in words, whatever is written there."""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from source_tree import ROOT

from stages.check import CATALOGUES, SECTIONS
from stages.run.settings.params import Params, plain

# Words of pydantic, of its types and of its patterns, which no user has to know.
FOREIGN = re.compile(
    r"\b(valid (string|number|integer|boolean|tuple|dictionary)|should|instance|Field|Input|Tuple"
    r"|String|pattern|model|dictionary|None|tuple|str|int|float|bool)\b|\^|\$$"
)
WRONG = (
    None,
    True,
    0,
    -1,
    10**12,
    0.5,
    float("nan"),
    "",
    "x/y z",
    "value:",
    {"value": None},
    {},
    [],
    [None],
    [-1, "x/y z", 0.5],
    [[]],
)


def keys_below(node: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Keys of all values of params.yaml, sections among them."""
    if keys:
        yield keys
    if isinstance(node, dict):
        for key, value in node.items():
            yield from keys_below(value, (*keys, key))


def set_at(values: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = value


def test_every_message_about_a_value_is_in_words() -> None:
    whole = plain(Params.read(ROOT / "params.yaml").raw)
    unclear, messages = [], set()
    for keys in keys_below(whole):
        owner = keys[1] if keys[0] == "runtime" and len(keys) > 1 else keys[0]
        if owner not in SECTIONS and owner not in CATALOGUES:
            continue
        needed = {key: whole[key] for key in ("runtime", owner)}
        one = {owner: SECTIONS[owner]} if owner in SECTIONS else {}
        catalogue = {owner: CATALOGUES[owner]} if owner in CATALOGUES else {}
        for wrong in WRONG:
            values = deepcopy(needed)
            set_at(values, keys, wrong)
            _, errors = Params(values, "params.yaml").check_all(one, catalogue)
            for error in errors:
                if error.where.endswith("unknown section") or "unknown section" in str(error):
                    continue
                messages.add(error.expected)
                assert error.expected or error.hint or error.fix, str(error)
                if FOREIGN.search(error.expected):
                    unclear.append(f"{'.'.join(keys)}={wrong!r}: {error}")
    assert len(messages) > 50
    assert not unclear, "\n\n".join(unclear[:10]) + f"\n{len(unclear)} in all"
