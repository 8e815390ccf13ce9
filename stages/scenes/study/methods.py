"""Names of the methods that make novel views.

`none` renders the Gaussians as trained, `<fixer>-post` fixes each render, `<fixer>-distill` trains
fixed views into the Gaussians. The fixer is untuned (`base`) or tuned.
"""

from collections.abc import Sequence

PLAIN, BASE, TUNED = "none", "base", "tuned"
FIXERS = (BASE, TUNED)
METHODS = (PLAIN, *(f"{fixer}-{use}" for fixer in FIXERS for use in ("post", "distill")))


def methods_of(fixer: str, methods: Sequence[str]) -> tuple[str, ...]:
    """Those of `methods` that need a fixer.

    >>> methods_of("tuned", ("none", "base-post", "tuned-post"))
    ('tuned-post',)
    """
    return tuple(method for method in methods if method.startswith(f"{fixer}-"))
