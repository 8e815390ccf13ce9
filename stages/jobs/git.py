"""Git for experiments: one process at a time, and the content of a worktree as a commit.

DVC is not imported here, so that saving takes no time.
"""

import math
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.run.errors import UserError
from stages.run.process.locks import alone

# Committer where git has none configured: hours of training must not be lost for that.
_NOBODY = {"NAME": "splatfix", "EMAIL": "splatfix@localhost"}


def git(folder: Path, *words: str, **env: str) -> str:
    """Output of git without the final newline. Raises UserError with its error message."""
    ended = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, env={**os.environ, **env}
    )
    if ended.returncode:
        message = os.fsdecode(ended.stderr).strip()
        raise UserError(f"git {' '.join(words[:4])}", message or f"ended with {ended.returncode}")
    return os.fsdecode(ended.stdout).removesuffix("\n")


@contextmanager
def git_lock(folder: Path) -> Iterator[None]:
    """Wait until no other process changes any worktree of this repository, and keep others out."""
    with alone(Path(folder, git(folder, "rev-parse", "--git-common-dir"), "splatfix"), math.inf):
        yield


def save_experiment(name: str) -> str:
    """Save the current worktree as the DVC experiment `name`; returns its commit.

    `dvc exp save` uses stashes and references that all worktrees share, and empties the worktree
    meanwhile. This writes nothing but the experiment's own reference. Results are in the cache and
    in dvc.lock already.
    """
    root = Path.cwd()
    with git_lock(root):
        base = git(root, "rev-parse", "HEAD")
        index = Path(git(root, "rev-parse", "--absolute-git-dir"), "experiment.index")
        index.unlink(missing_ok=True)
        environment = {"GIT_INDEX_FILE": str(index)}
        try:
            git(root, "read-tree", "HEAD", **environment)
            git(root, "add", "--all", "--", ".", **environment)
            tree = git(root, "write-tree", **environment)
        finally:
            index.unlink(missing_ok=True)
        words = ("commit-tree", tree, "-p", base, "-m", f"Experiment {name}")
        commit = git(root, *words, **_identity(root))
        git(root, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    return commit


def _identity(root: Path) -> dict[str, str]:
    ident = subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], cwd=root, capture_output=True)
    if ident.returncode == 0:
        return {}
    return {f"GIT_{who}_{key}": _NOBODY[key] for who in ("AUTHOR", "COMMITTER") for key in _NOBODY}
