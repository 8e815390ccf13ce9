"""Counts and lists of names in messages and texts."""

from collections.abc import Sequence

_SHOWN = 5


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "scene"), counted(4, "scene"), counted(0, "error")
    ('1 scene', '4 scenes', '0 errors')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def first_few(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are.

    >>> first_few(["a", "b"]), first_few(list("abcde")), first_few(list("abcdefg"))
    ('a, b', 'a, b, c, d, e', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
