"""Values given on the command line in the place of params.yaml's, in the dialect of DVC's `-S`.

DVC reads them with Hydra's parser, and so do we: `key=value`, lists `[a,b]`, quotes, `+key=value`
for a key that params.yaml does not state.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.run.errors import UserError

COMMAND_LINE = "command line"
_FORM = "section.key=value, such as train.max_steps=300"

Keys = tuple[str, ...]


def parse(texts: Sequence[str]) -> list[tuple[Keys, Any, bool]]:
    """Keys, value, and whether a new key may be added, of each override.

    Raises UserError for anything but one value for one key.
    """
    # Only a command that is given overrides pays for the parser's import.
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    parser, found = OverridesParser.create(), []
    for text in texts:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise UserError(
                f"{COMMAND_LINE}  -S {text}", "not an override", expected=_FORM
            ) from error
        kinds = (OverrideType.CHANGE, OverrideType.ADD)
        keys = tuple(override.key_or_group.split("."))
        if override.type not in kinds or override.is_sweep_override() or len(keys) < 2:
            raise UserError(
                f"{COMMAND_LINE}  -S {text}", "not one value for one key", expected=_FORM,
                fix="quote a text with commas, and queue several values by `dvc exp run`",
            )  # fmt: skip
        found.append((keys, override.value(), override.type == OverrideType.ADD))
    return found


def apply(raw: Any, overrides: Sequence[tuple[Keys, Any, bool]]) -> None:
    """Put the values into parsed params. Raises KeyError with the keys down to an unknown one."""
    for keys, value, new in overrides:
        node = raw
        for depth, key in enumerate(keys[:-1]):
            if not isinstance(node.get(key), Mapping):
                raise KeyError(keys[: depth + 1])
            node = node[key]
        if keys[-1] not in node and not new:
            raise KeyError(keys)
        node[keys[-1]] = value
