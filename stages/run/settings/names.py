"""Valid names of scenes, captures and fixers in params.yaml.

Every name becomes a folder, a word of a command and a key of params.yaml, and DVC acts on all
three before a stage can check it. So a name is a single word without special meaning in paths,
shells, options or YAML.
"""

import re
from typing import Annotated

from pydantic import BeforeValidator

from stages.run.errors import UserError

# A letter is required: YAML reads 2024, 1_000 and 2024-01-31 as other types than text.
_PATTERN = re.compile(r"(?=[0-9_-]*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
# YAML or `-S` read them as other types than text.
_WORDS = {"true", "false", "null"}


def is_name(value: object) -> bool:
    """Whether a value of params.yaml can be a name.

    >>> [is_name(name) for name in ("pair15_fight", "4cam", "room.v2", "../x", "", 2024, "1e5")]
    [True, True, False, False, False, False, False]
    """
    if not isinstance(value, str) or not _PATTERN.fullmatch(value):
        return False
    return value.lower() not in _WORDS and not _is_number(value)


def name_rule(value: object) -> str:
    """The rule for names as a message, with a valid name close to `value`.

    >>> name_rule("room.v2")[-17:]
    "such as 'room_v2'"
    """
    text = str(value) if isinstance(value, str | int | float) else ""
    bare = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")[:60]
    near = next(filter(is_name, (bare, bare and f"scene_{bare}")), "scene_1")
    return (
        "a name: letters, digits, '_' and '-' of ASCII, at most 80, a letter or digit first, "
        f"not only digits; such as {near!r}"
    )


def name_argument(text: str) -> str:
    """A name from the command line, as the `type` of an argument. Raises UserError."""
    if not is_name(text):
        raise UserError("command line", repr(text), expected=name_rule(text))
    return text


def _checked(value: object) -> object:
    if not is_name(value):
        raise ValueError(name_rule(value))
    return value


def _is_number(text: str) -> bool:
    for kind in (float, lambda digits: int(digits, 0)):
        try:
            kind(text)
        except ValueError:
            continue
        return True
    return False


Name = Annotated[str, BeforeValidator(_checked)]
Names = tuple[Name, ...]
