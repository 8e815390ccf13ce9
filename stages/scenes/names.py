"""Choosing images by a token in their names."""

import re


def matching(name: str, token: str) -> bool:
    """Whether `token` stands in `name` as a whole word of letters and digits, in any case.

    An empty token matches every name.

    >>> matching("clip_RIGHT_01.png", "right"), matching("BRIGHT.png", "RIGHT"), matching("a", "")
    (True, False, True)
    """
    pattern = rf"(?<![A-Za-z0-9]){re.escape(token)}(?![A-Za-z0-9])"
    return not token or re.search(pattern, name, re.IGNORECASE) is not None
