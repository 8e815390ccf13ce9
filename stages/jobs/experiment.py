"""An experiment in its own git worktree: other params, the same cache, an unchanged workspace.

The worktree is `<work root>/experiments/<name>`; `.<name>.json` beside it holds the params that it
was opened with, and whether opening it was completed. In a repository that holds more than this
project the stages run in the project's folder of the worktree.
"""

import logging
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2, rmtree
from typing import Any

from configobj import ConfigObj

from stages.graph.pipeline import Pipeline, set_params
from stages.jobs.git import git, git_lock
from stages.run.errors import UserError
from stages.run.files import read_json, safe_name, work_root, write_json

_LOGGER = logging.getLogger(__name__)
# Settings of a remote that name a file, which DVC resolves from the folder of its config.
_PATHS = (
    "url",
    "keyfile",
    "cert_path",
    "key_path",
    "credentialpath",
    "configpath",
    "gdrive_user_credentials_file",
    "gdrive_service_account_json_file_path",
)


@dataclass(frozen=True)
class Experiment:
    """One experiment of this workspace."""

    name: str
    worktree: Path
    root: Path  # the project in the worktree

    @property
    def record(self) -> Path:
        """File with the params that it was opened with."""
        return self.worktree.with_name(f".{self.name}.json")

    @property
    def opened_with(self) -> dict[str, Any]:
        """Content of the record; empty for experiments older than records."""
        return read_json(self.record) if self.record.is_file() else {}

    @property
    def is_open(self) -> bool:
        """Whether it can go on; one that was killed while it was opened must be opened again."""
        return self.worktree.is_dir() and self.opened_with.get("is_open", True)


def find(name: str) -> Experiment:
    """The experiment of this name, open or not. Raises UserError for a name that git refuses."""
    worktree = work_root().resolve() / "experiments" / safe_name(name, "--name")
    if name.endswith((".", ".lock")):
        raise UserError("--name", name, expected="no '.' or '.lock' at the end, which git refuses")
    return Experiment(name, worktree, worktree / git(Path.cwd(), "rev-parse", "--show-prefix"))


def open_experiment(name: str | None, settings: Sequence[str]) -> tuple[Experiment, bool]:
    """An experiment with params set as `dvc exp run --set-param` sets them, and whether it is new.

    A new one starts from the workspace, including uncommitted edits. An existing one continues;
    without a name the next free one is used. Raises UserError for other params of an existing one.
    """
    home = Path.cwd()
    with git_lock(home):
        experiment = find(name or _free_name())
        record = experiment.opened_with
        _require_ours(experiment, home)
        if experiment.is_open:
            if settings and list(settings) != record.get("settings", []):
                raise UserError(
                    experiment.worktree,
                    f"the experiment {experiment.name} has begun",
                    expected="a new name for other params",
                    fix=f"continue it by `-n {experiment.name}` only, or "
                    f"`git worktree remove --force {experiment.worktree}`",
                )
            return experiment, False
        if record and not record["is_open"]:
            settings = settings or record["settings"]
            _LOGGER.info("%s: was stopped while it was opened; opened again", experiment.name)
            _remove(experiment)
        try:
            record = {"repository": str(_repository(home)), "settings": list(settings)}
            write_json(experiment.record, {**record, "is_open": False})
            # Forced twice: also where a worktree was deleted without git's knowledge. Without
            # hooks: those of `dvc install` check out data, and there is no cache there yet.
            add = ("worktree", "add", "--quiet", "--force", "--force", "--detach")
            git(home, "-c", f"core.hooksPath={os.devnull}", *add, str(experiment.worktree))
            _copy_edits(home, experiment.root)
            _share_cache(home, experiment.root)
            set_params(experiment.root, settings)
            write_json(experiment.record, {**record, "is_open": True})
        except BaseException:
            _remove(experiment)
            raise
    return experiment, True


def close_experiment(experiment: Experiment) -> None:
    """Remove an experiment's worktree; saved results stay in git and in the cache."""
    with git_lock(Path.cwd()):
        _remove(experiment)


def _free_name() -> str:
    number = 1
    while find(f"exp-{number}").worktree.exists():
        number += 1
    return f"exp-{number}"


def _require_ours(experiment: Experiment, home: Path) -> None:
    """Raise UserError for another repository's experiment in a shared work root."""
    ours = _repository(home)
    theirs = {Path(experiment.opened_with.get("repository", ours))}
    if experiment.is_open:
        theirs.add(_repository(experiment.worktree))
    if theirs - {ours}:
        raise UserError(
            experiment.worktree, "an experiment of another repository", fix="use another name"
        )


def _repository(folder: Path) -> Path:
    return Path(folder, git(folder, "rev-parse", "--git-common-dir")).resolve()


def _remove(experiment: Experiment) -> None:
    if (experiment.worktree / ".git").is_file():
        remove = ("worktree", "remove", "--force", "--force", str(experiment.worktree))
        subprocess.run(["git", *remove], capture_output=True)
    rmtree(experiment.worktree, ignore_errors=True)
    experiment.record.unlink(missing_ok=True)


def _copy_edits(home: Path, root: Path) -> None:
    """Copy the project's differences from the last commit, including new files."""
    deleted = git(home, "ls-files", "-z", "--deleted").split("\0")
    changed = git(home, "ls-files", "-z", "--modified", "--others", "--exclude-standard")
    staged = git(home, "diff", "-z", "--name-only", "--relative", "--cached", "HEAD")
    for name in filter(None, {*changed.split("\0"), *staged.split("\0"), *deleted}):
        source, target = home / name, root / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            copy2(source, target)
        else:
            target.unlink(missing_ok=True)


def _share_cache(home: Path, root: Path) -> None:
    """Give the worktree the local settings and the cache of the workspace.

    Not by `dvc config`, which writes ASCII only and refuses other paths.
    """
    source, target = home / ".dvc" / "config.local", root / ".dvc" / "config.local"
    lines = source.read_text().splitlines() if source.is_file() else []
    config = ConfigObj(lines, interpolation=False)
    for section in config.sections:
        for key in set(_PATHS) & set(config[section]):
            config[section][key] = _absolute(home / ".dvc", config[section][key])
    cache = Pipeline(home).cache_folder.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    config.setdefault("cache", {})["dir"] = os.path.relpath(cache, root / ".dvc")
    target.write_text("\n".join([*config.write(), ""]))


def _absolute(folder: Path, path: str) -> str:
    is_address = re.match(r"\w+://", path) or path.startswith("~")
    return path if is_address else os.path.abspath(folder / path)
