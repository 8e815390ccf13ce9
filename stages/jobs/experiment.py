"""An experiment in a git worktree of its own: other params, same cache, the workspace untouched."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stages.jobs.pipeline import Pipeline, set_params
from stages.run.errors import UserError
from stages.run.files import safe_name, work_root


def folder_of(name: str) -> Path:
    """Where an experiment's worktree lies."""
    return work_root().resolve() / "experiments" / safe_name(name, "--name")


def open_experiment(name: str, settings: Sequence[str]) -> Path:
    """The worktree of an experiment, with params set as `dvc exp run --set-param` sets them.

    A new one begins as the workspace is now, uncommitted edits included. One that is there goes
    on where it is. Raises UserError when that one is to get other params.
    """
    folder = folder_of(name)
    if folder.is_dir():
        if settings:
            raise UserError(
                folder, f"the experiment {name} has begun", expected="a new name for other params",
                fix=f"go on by `-n {name}` alone, or `git worktree remove --force {folder}`",
            )  # fmt: skip
        return folder
    home = Path.cwd()
    _git(home, "worktree", "add", "--quiet", "--detach", str(folder))
    try:
        _copy_edits(home, folder)
        _share_cache(home, folder)
        set_params(folder, settings)
    except BaseException:
        close_experiment(name)
        raise
    return folder


def close_experiment(name: str) -> None:
    """Remove an experiment's worktree; what it saved stays in git and in the cache."""
    _git(Path.cwd(), "worktree", "remove", "--force", str(folder_of(name)))


def _copy_edits(home: Path, folder: Path) -> None:
    """Bring along what differs from the last commit, new files included."""
    deleted = _git(home, "ls-files", "-z", "--deleted").split("\0")
    changed = _git(home, "ls-files", "-z", "--modified", "--others", "--exclude-standard")
    staged = _git(home, "diff", "-z", "--name-only", "--cached", "HEAD")
    for name in filter(None, {*changed.split("\0"), *staged.split("\0"), *deleted}):
        source, target = home / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        else:
            target.unlink(missing_ok=True)


def _share_cache(home: Path, folder: Path) -> None:
    """Local settings of the workspace, and its cache: what one makes, the other has."""
    local = home / ".dvc" / "config.local"
    if local.is_file():
        shutil.copy2(local, folder / ".dvc" / "config.local")
    cache = Pipeline(home).cache_folder.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dvc", "cache", "dir", "--local", "-q", str(cache)], cwd=folder, check=True)


def _git(folder: Path, *words: str) -> str:
    ended = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    if ended.returncode:
        raise UserError(f"git {words[0]}", ended.stderr.strip())
    return ended.stdout
