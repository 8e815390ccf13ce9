"""Git as experiments need it: one process at a time, and a worktree's content as a commit.

DVC is not imported here: saving is the matter of a moment.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.jobs.locks import one_at_a_time
from stages.run.errors import UserError

# Who saves where git knows nobody: a training of hours must not be lost for want of a name.
_NOBODY = {"NAME": "splatfix", "EMAIL": "splatfix@localhost"}


def git(folder: Path, *words: str, **env: str) -> str:
    """What git prints, without the line's end. Raises UserError with what it complains of."""
    ended = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, env={**os.environ, **env}
    )
    if ended.returncode:
        said = os.fsdecode(ended.stderr).strip()
        raise UserError(f"git {' '.join(words[:4])}", said or f"ended with {ended.returncode}")
    return os.fsdecode(ended.stdout).removesuffix("\n")


@contextmanager
def git_lock(folder: Path) -> Iterator[None]:
    """One process at a time over all worktrees of a repository: in the folder that they share."""
    with one_at_a_time(Path(folder, git(folder, "rev-parse", "--git-common-dir"), "splatfix.lock")):
        yield


def save_experiment(name: str) -> str:
    """Save the worktree that this process is in as the DVC experiment `name`; its commit.

    `dvc exp save` would do so by way of stashes and references that all worktrees share, and
    empty the worktree meanwhile. Here nothing but the experiment's own reference is written.
    Results are in the cache and in dvc.lock by then.
    """
    root = Path.cwd()
    with git_lock(root):
        base = git(root, "rev-parse", "HEAD")
        index = Path(git(root, "rev-parse", "--absolute-git-dir"), "experiment.index")
        index.unlink(missing_ok=True)
        told = {"GIT_INDEX_FILE": str(index)}
        try:
            git(root, "read-tree", "HEAD", **told)
            git(root, "add", "--all", "--", ".", **told)
            tree = git(root, "write-tree", **told)
        finally:
            index.unlink(missing_ok=True)
        words = ("commit-tree", tree, "-p", base, "-m", f"Experiment {name}")
        commit = git(root, *words, **_identity(root))
        git(root, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    return commit


def _identity(root: Path) -> dict[str, str]:
    asked = subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], cwd=root, capture_output=True)
    if not asked.returncode:
        return {}
    return {f"GIT_{who}_{key}": _NOBODY[key] for who in ("AUTHOR", "COMMITTER") for key in _NOBODY}
