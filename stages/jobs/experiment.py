"""An experiment in a git worktree of its own: other params, same cache, the workspace untouched.

The worktree is `<work root>/experiments/<name>`; `.<name>.json` beside it says with which params it
was opened, and whether that came to its end. In a repository that holds more than this project the
stages run in the project's folder of the worktree.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2, rmtree
from typing import Any

from configobj import ConfigObj

from stages.jobs.git import git, git_lock
from stages.jobs.pipeline import Pipeline, set_params
from stages.run.errors import UserError
from stages.run.files import read_json, safe_name, work_root, write_json

# Settings of a remote that name a file; DVC sees a relative one from the folder of its config.
_PATHS = (
    "url", "keyfile", "cert_path", "key_path", "credentialpath", "configpath",
    "gdrive_user_credentials_file", "gdrive_service_account_json_file_path",
)  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """One experiment of this workspace."""

    name: str
    worktree: Path
    root: Path  # the project in the worktree

    @property
    def record(self) -> Path:
        """What it was opened with."""
        return self.worktree.with_name(f".{self.name}.json")

    @property
    def told(self) -> dict[str, Any]:
        """What the record says; nothing of one that is older than records."""
        return read_json(self.record) if self.record.is_file() else {}

    @property
    def is_open(self) -> bool:
        """Whether it can go on; what was killed while it was opened has to begin anew."""
        return self.worktree.is_dir() and self.told.get("is_open", True)


def find(name: str) -> Experiment:
    """The experiment of a name, opened or not. Raises UserError for a name that git refuses."""
    worktree = work_root().resolve() / "experiments" / safe_name(name, "--name")
    if name.endswith((".", ".lock")):
        raise UserError("--name", name, expected="no '.' and no '.lock' at the end, as git has it")
    return Experiment(name, worktree, worktree / git(Path.cwd(), "rev-parse", "--show-prefix"))


def open_experiment(name: str | None, settings: Sequence[str]) -> tuple[Experiment, bool]:
    """An experiment with params set as `dvc exp run --set-param` sets them, and whether it is new.

    A new one begins as the workspace is now, uncommitted edits included. One that is there goes
    on where it is; without a name the next free one is taken. Raises UserError when one that is
    there is to get other params.
    """
    home = Path.cwd()
    with git_lock(home):
        found = find(name or _free_name())
        told = found.told
        _check_ours(found, home)
        if found.is_open:
            if settings and list(settings) != told.get("settings", []):
                raise UserError(
                    found.worktree, f"the experiment {found.name} has begun",
                    expected="a new name for other params", fix=f"go on by `-n {found.name}` "
                    f"alone, or `git worktree remove --force {found.worktree}`",
                )  # fmt: skip
            return found, False
        if told and not told["is_open"]:
            settings = settings or told["settings"]
            print(f"{found.name}: was stopped while it was opened, and is opened anew", flush=True)
            _remove(found)
        try:
            told = {"repository": str(_repository(home)), "settings": list(settings)}
            write_json(found.record, {**told, "is_open": False})
            # Twice forced: also in the place of one that was deleted without git's knowledge.
            # Without hooks: those of `dvc install` check data out, which has no cache there yet.
            add = ("worktree", "add", "--quiet", "--force", "--force", "--detach")
            git(home, "-c", f"core.hooksPath={os.devnull}", *add, str(found.worktree))
            _copy_edits(home, found.root)
            _share_cache(home, found.root)
            set_params(found.root, settings)
            write_json(found.record, {**told, "is_open": True})
        except BaseException:
            _remove(found)
            raise
    return found, True


def close_experiment(experiment: Experiment) -> None:
    """Remove an experiment's worktree; what it saved stays in git and in the cache."""
    with git_lock(Path.cwd()):
        _remove(experiment)


def _free_name() -> str:
    number = 1
    while find(f"exp-{number}").worktree.exists():
        number += 1
    return f"exp-{number}"


def _check_ours(experiment: Experiment, home: Path) -> None:
    """Raise UserError when a work root that several repositories share holds another's."""
    ours = _repository(home)
    theirs = {Path(experiment.told.get("repository", ours))}
    if experiment.is_open:
        theirs.add(_repository(experiment.worktree))
    if theirs - {ours}:
        raise UserError(
            experiment.worktree, "no experiment of this repository", fix="give another name"
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
    """Bring along what differs from the last commit in the project, new files included."""
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
    """Local settings of the workspace, and its cache: what one makes, the other has.

    Not by `dvc config`, which writes ASCII alone and refuses a path with other letters.
    """
    source, target = home / ".dvc" / "config.local", root / ".dvc" / "config.local"
    lines = source.read_text().splitlines() if source.is_file() else []
    config = ConfigObj(lines, interpolation=False)
    for section in config.sections:
        for key in set(_PATHS) & set(config[section]):
            config[section][key] = _from(home / ".dvc", config[section][key])
    cache = Pipeline(home).cache_folder.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    config.setdefault("cache", {})["dir"] = os.path.relpath(cache, root / ".dvc")
    target.write_text("\n".join([*config.write(), ""]))


def _from(folder: Path, path: str) -> str:
    is_address = re.match(r"\w+://", path) or path.startswith("~")
    return path if is_address else os.path.abspath(folder / path)
