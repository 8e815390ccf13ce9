"""Methods of making novel views, and their names: `none`, or `<fixer>-<form>`.

`none` is the plain splat. With form `post` each render is fixed; with `distill` fixed views are
trained into the Gaussians.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

FixerName = Literal["base", "tuned"]
FormName = Literal["post", "distill"]
PLAIN, BASE, TUNED = "none", "base", "tuned"
FIXERS: tuple[FixerName, ...] = (BASE, TUNED)
POST, DISTILL = "post", "distill"


@dataclass(frozen=True)
class Method:
    """A method by its parts."""

    fixer: str  # `base` (untuned) or `tuned`; of the plain splat `none`
    form: str = ""

    @classmethod
    def parse(cls, name: str) -> "Method":
        """The parts of a name.

        >>> Method.parse("tuned-distill"), Method.parse("none")
        (Method(fixer='tuned', form='distill'), Method(fixer='none', form=''))
        """
        fixer, _, form = name.partition("-")
        return cls(fixer, form)

    @property
    def parts(self) -> tuple[str, ...]:
        """Fixer and form; of the plain splat `none` alone."""
        return (self.fixer, self.form) if self.form else (self.fixer,)

    @property
    def untuned(self) -> str | None:
        """Name of the same method with the untuned fixer; None unless this one is tuned."""
        return str(Method(BASE, self.form)) if self.fixer == TUNED else None

    def __str__(self) -> str:
        return "-".join(self.parts)


METHODS = (PLAIN, *(str(Method(fixer, form)) for fixer in FIXERS for form in (POST, DISTILL)))


def methods_of(fixer: str, methods: Iterable[str]) -> tuple[str, ...]:
    """Those of `methods` that need a fixer.

    >>> methods_of("tuned", ("none", "base-post", "tuned-post"))
    ('tuned-post',)
    """
    return tuple(str(one) for one in map(Method.parse, methods) if one.form and one.fixer == fixer)
