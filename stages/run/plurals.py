"""Counts in messages and texts."""


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "scene"), counted(4, "scene"), counted(0, "error")
    ('1 scene', '4 scenes', '0 errors')
    """
    return f"{count} {noun}{'s' * (count != 1)}"
