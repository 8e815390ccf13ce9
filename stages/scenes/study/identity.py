"""Who is shown, however it is spelled.

A name of a scene or of a group is compared by its letters and numbers alone: not by case, accents,
width, separators or leading zeros. `pairNN` anywhere in a name is the pair of people that it shows.
"""

import re
import unicodedata

_TOKEN = re.compile(r"\d+|[^\W\d_]+")
# "pair" ends these words and names nobody.
_PAIR = re.compile(r"(?<!re)(?<!im)(?<!des)pair[\W_]*(\d+)")


def normalised_name(name: str) -> str:
    """A name as it is compared with others; separators count between numbers alone.

    >>> [normalised_name(name) for name in ("Hi4D_PAIR-015 ", "hi4dpair15", "take_1_2", "take12")]
    ['hi4dpair15', 'hi4dpair15', 'take1.2', 'take12']
    """
    tokens = [
        str(int(token)) if token.isdecimal() else token for token in _TOKEN.findall(_folded(name))
    ]
    joined = " ".join(tokens)
    return re.sub(r"(?<=\d) (?=\d)", ".", joined).replace(" ", "") or name


def pairs_in(name: str) -> tuple[str, ...]:
    """The pairs of people that a name speaks of, each once.

    >>> pairs_in("Hi4D-PAIR5-hug"), pairs_in("HI4Dpair_015hug"), pairs_in("repair15"), pairs_in("a")
    (('pair05',), ('pair15',), (), ())
    """
    found = (f"pair{int(number):02d}" for number in _PAIR.findall(_folded(name)))
    return tuple(dict.fromkeys(found))


def group_in_name(scene: str) -> str:
    """The pair in a scene's name; any other name is a group of its own.

    >>> group_in_name("hi4d_pair15_fight"), group_in_name("pose2sim_4cam")
    ('pair15', 'pose2sim_4cam')
    """
    return next(iter(pairs_in(scene)), scene)


def group_of(scene: str, group: str) -> str:
    """The people of a scene: `group` of its entry, or by its name if that is blank."""
    return group.strip() or group_in_name(scene)


def people(group: str) -> str:
    """A group as it is compared with others.

    >>> people("pair15 ") == people("PAIR-015") == people("hi4d_pair15"), people("The Band")
    (True, 'theband')
    """
    return group_in_name(group) if pairs_in(group) else normalised_name(group)


def _folded(name: str) -> str:
    """Without case, accents, invisible signs and the many forms of one letter or digit."""
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    unseen = ("Mn", "Me", "Cf")
    return "".join(letter for letter in apart if unicodedata.category(letter) not in unseen)
