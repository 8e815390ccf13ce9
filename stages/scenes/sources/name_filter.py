"""Selects images and cameras by a word in their names."""

import re
import unicodedata


def matching(name: str, token: str) -> bool:
    """Whether `name` contains `token` as a whole word of letters and digits, in any case.

    An empty token matches every name; Unicode forms of a letter are equal.

    >>> matching("clip_RIGHT_01.png", "right"), matching("BRIGHT.png", "RIGHT"), matching("a", "")
    (True, False, True)
    """
    name, token = (unicodedata.normalize("NFC", text) for text in (name, token))
    pattern = rf"(?<![A-Za-z0-9]){re.escape(token)}(?![A-Za-z0-9])"
    return not token or re.search(pattern, name, re.IGNORECASE) is not None
