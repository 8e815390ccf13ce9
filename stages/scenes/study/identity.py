"""Which people a scene shows, by names in any spelling.

Names of scenes and groups are compared by their letters and numbers alone, regardless of case,
accents, width, separators and leading zeros. `pairNN` anywhere in a name is the pair of people
that it shows.
"""

import re
import unicodedata

_TOKEN = re.compile(r"\d+|[^\W\d_]+")
# Not the end of repair, impair or despair.
_PAIR = re.compile(r"(?<!re)(?<!im)(?<!des)pair[\W_]*(\d+)")


def normalised_name(name: str) -> str:
    """The form of a name that is compared; separators count only between numbers.

    >>> [normalised_name(name) for name in ("Hi4D_PAIR-015 ", "hi4dpair15", "take_1_2", "take12")]
    ['hi4dpair15', 'hi4dpair15', 'take1.2', 'take12']
    """
    tokens = [
        str(int(token)) if token.isdecimal() else token for token in _TOKEN.findall(_folded(name))
    ]
    joined = " ".join(tokens)
    return re.sub(r"(?<=\d) (?=\d)", ".", joined).replace(" ", "") or name


def pairs_in(name: str) -> tuple[str, ...]:
    """The pairs of people in a name, without repetitions.

    >>> pairs_in("Hi4D-PAIR5-hug"), pairs_in("HI4Dpair_015hug"), pairs_in("repair15"), pairs_in("a")
    (('pair05',), ('pair15',), (), ())
    """
    pairs = (f"pair{int(number):02d}" for number in _PAIR.findall(_folded(name)))
    return tuple(dict.fromkeys(pairs))


def group_in_name(scene: str) -> str:
    """The pair in a scene's name; a name without a pair is its own group.

    >>> group_in_name("hi4d_pair15_fight"), group_in_name("pose2sim_4cam")
    ('pair15', 'pose2sim_4cam')
    """
    return next(iter(pairs_in(scene)), scene)


def group_of(scene: str, group: str) -> str:
    """The group of a scene: `group` of its entry, or by its name if that is blank."""
    return group.strip() or group_in_name(scene)


def people(group: str) -> str:
    """The form of a group that is compared.

    >>> people("pair15 ") == people("PAIR-015") == people("hi4d_pair15"), people("The Band")
    (True, 'theband')
    """
    return group_in_name(group) if pairs_in(group) else normalised_name(group)


def _folded(name: str) -> str:
    """Without case, accents, invisible characters and compatibility forms."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    invisible = ("Mn", "Me", "Cf")
    return "".join(letter for letter in decomposed if unicodedata.category(letter) not in invisible)
