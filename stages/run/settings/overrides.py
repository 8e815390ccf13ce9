"""Values from the command line that override params.yaml, in the syntax of DVC's `-S`.

Hydra's parser reads them, as in DVC: `key=value`, lists `[a,b]`, quotes, `+key=value`
for a key that params.yaml lacks.
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stages.run.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

COMMAND_LINE = "command line"
_VARIABLE = "variable "
# `key=VARIABLE` of the values that a script in slurm/ took from variables of the shell.
_VARIABLES = "SPLATFIX_VARIABLES"
_FORM = "section.key=value, such as train.max_steps=300"

Keys = tuple[str, ...]


def origin(keys: Sequence[Any]) -> str:
    """Where the user set a key: the command line, or a script's variable, such as LF_INNER."""
    dotted = ".".join(map(str, keys))
    named = dict(pair.split("=", 1) for pair in os.environ.get(_VARIABLES, "").split())
    return f"{_VARIABLE}{named[dotted]}" if dotted in named else COMMAND_LINE


def is_override(where: str) -> bool:
    """Whether a place is one of `origin`, and no line of a file."""
    return where.startswith((COMMAND_LINE, _VARIABLE))


def parse(texts: Sequence[str]) -> list[tuple[Keys, Any, bool]]:
    """Keys and value of each override, and whether it may add a key.

    Raises UserError for an override that does not set one key to one value.
    """
    from hydra.core.override_parser.types import OverrideType

    parsed = []
    for text in texts:
        at = f"{origin([text.lstrip('+').partition('=')[0]])}  -S {text}"
        try:
            override = _override(text)
        except ValueError as error:
            raise UserError(at, "not an override", expected=_FORM, fix=quoting(text)) from error
        kinds = (OverrideType.CHANGE, OverrideType.ADD)
        keys = tuple(override.key_or_group.split("."))
        if override.type not in kinds or override.is_sweep_override() or len(keys) < 2:
            raise UserError(
                at,
                "not one value for one key",
                expected=_FORM,
                fix=f"{quoting(text)}; several values are queued by `dvc exp run`".lstrip("; "),
            )
        parsed.append((keys, override.value(), override.type == OverrideType.ADD))
    return parsed


def literal(text: str) -> str:
    """The override of a `key=text` whose text is taken literally.

    >>> print(literal('static.lf_calib=/tmp/Zürich (2)/"cal".tar'))
    static.lf_calib="/tmp/Zürich (2)/\\"cal\\".tar"
    """
    key, _, value = text.partition("=")
    # Backslashes escape only before a quote, and the closing quote counts.
    value = re.sub(r'(\\*)"', r'\1\1\\"', value)
    value = re.sub(r"(\\+)\Z", r"\1\1", value)
    return f'{key}="{value}"'


def quoting(text: str) -> str:
    """How to quote a text override in a shell; empty where quotes would not help.

    >>> print(quoting("static.lf_calib=~/cal.tar"))
    for a text write -S 'static.lf_calib="~/cal.tar"'
    """
    if not re.match(r"\+{0,2}[\w.]+=.", text):
        return ""
    try:
        if not _override(text).is_sweep_override():
            return ""
    except ValueError:
        pass  # not in Hydra's grammar
    return f"for a text write -S {shlex.quote(literal(text))}"


def _override(text: str) -> "Override":
    """An override, parsed by Hydra. Raises ValueError for invalid syntax."""
    # Imported here: only commands with overrides pay for it.
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError) as error:
        raise ValueError(str(error)) from error


def apply(raw: Any, overrides: Sequence[tuple[Keys, Any, bool]]) -> None:
    """Set the values in parsed params. Raises KeyError with the path of an unknown key."""
    for keys, value, new in overrides:
        node = raw
        for depth, key in enumerate(keys[:-1]):
            if not isinstance(node.get(key), Mapping):
                raise KeyError(keys[: depth + 1])
            node = node[key]
        if keys[-1] not in node and not new:
            raise KeyError(keys)
        node[keys[-1]] = value
