"""Arguments of entries: the standard parser, whose errors also say where params are set."""

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import stages

__all__ = ["Arguments", "Namespace", "elsewhere"]
_SETTERS = ("-S", "--set-param", "--set-text", "--recipe")


class Arguments(ArgumentParser):
    """The parser of an entry. Where it takes no params, `-S` is answered by what does."""

    def __init__(self, prog: str | None = None, **options: Any):
        super().__init__(prog or _command(sys.argv[0]), **options)

    def error(self, message: str) -> NoReturn:
        """Print usage and error, then exit with code 2."""
        is_setter = any(word.startswith(_SETTERS) for word in sys.argv[1:])
        if is_setter and not set(_SETTERS) & self._option_string_actions.keys():
            message += f"\nfix: {elsewhere(sys.argv)}"
        super().error(message)


def _command(path: str) -> str | None:
    """What a user types to start the entry of a path; None for another program.

    >>> _command("/x/stages/commands/plan.py"), _command("/usr/bin/pytest")
    ('python -m stages.plan', None)
    """
    entry = Path(path)
    is_ours = stages.__name__ in (entry.parent.name, entry.parent.parent.name)
    return f"python -m {stages.__name__}.{entry.stem}" if is_ours else None


def elsewhere(argv: Sequence[str]) -> str:
    """Where the params in arguments can be set, for an entry that reads params.yaml alone.

    >>> elsewhere(["/x/stages/weights.py", "-S", "weights.download=false"])
    'dvc exp run -S weights.download=false weights; or edit params.yaml, then `dvc repro weights`'
    >>> elsewhere(["/x/stages/commands/plan.py", "-Sa.b=1"])
    'edit params.yaml, which it reads; `dvc exp run -S a.b=1` runs an experiment'
    """
    path, words, settings = Path(argv[0]), list(argv[1:]), []
    while words:
        word = words.pop(0)
        if word in ("-S", "--set-param") and words:
            settings.append(words.pop(0))
        elif word.startswith(("-S", "--set-param=")):
            settings.append(word.removeprefix("-S").removeprefix("--set-param="))
    texts = settings or ["KEY=VALUE"]
    experiment = "dvc exp run " + " ".join(f"-S {shlex.quote(text)}" for text in texts)
    if path.parent.name == stages.__name__:
        return f"{experiment} {path.stem}; or edit params.yaml, then `dvc repro {path.stem}`"
    return f"edit params.yaml, which it reads; `{experiment}` runs an experiment"
