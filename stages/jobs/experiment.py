"""An experiment in a git worktree of its own: other params, same cache, the workspace untouched.

The worktree is `<work root>/experiments/<name>`; `.<name>.json` beside it says with which params it
was opened, and whether that came to its end. In a repository that holds more than this project the
stages run in the project's folder of the worktree.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2, rmtree

from configobj import ConfigObj

from stages.jobs.locks import one_at_a_time
from stages.jobs.pipeline import Pipeline, set_params
from stages.run.errors import UserError
from stages.run.files import read_json, safe_name, work_root, write_json

# Settings of a remote that name a file; DVC sees a relative one from the folder of its config.
_PATHS = (
    "url", "keyfile", "cert_path", "key_path", "credentialpath", "configpath",
    "gdrive_user_credentials_file", "gdrive_service_account_json_file_path",
)  # fmt: skip
# Who saves where git knows nobody: a training of hours must not be lost for want of a name.
_NOBODY = {"NAME": "splatfix", "EMAIL": "splatfix@localhost"}


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
    def is_open(self) -> bool:
        """Whether it can go on; what was killed while it was opened has to begin anew."""
        known = not self.record.is_file() or read_json(self.record)["is_open"]
        return self.worktree.is_dir() and known


def find(name: str) -> Experiment:
    """The experiment of a name, opened or not. Raises UserError for a name that git refuses."""
    worktree = work_root().resolve() / "experiments" / safe_name(name, "--name")
    if name.endswith((".", ".lock")):
        raise UserError("--name", name, expected="no '.' and no '.lock' at the end, as git has it")
    return Experiment(name, worktree, worktree / _git(Path.cwd(), "rev-parse", "--show-prefix"))


def open_experiment(name: str | None, settings: Sequence[str]) -> tuple[Experiment, bool]:
    """An experiment with params set as `dvc exp run --set-param` sets them, and whether it is new.

    A new one begins as the workspace is now, uncommitted edits included. One that is there goes
    on where it is; without a name the next free one is taken. Raises UserError when one that is
    there is to get other params.
    """
    home = Path.cwd()
    with git_lock(home):
        found = find(name or _free_name())
        told = read_json(found.record)["settings"] if found.record.is_file() else []
        if found.is_open:
            _check_ours(found, home)
            if settings and list(settings) != told:
                raise UserError(
                    found.worktree, f"the experiment {found.name} has begun",
                    expected="a new name for other params", fix=f"go on by `-n {found.name}` "
                    f"alone, or `git worktree remove --force {found.worktree}`",
                )  # fmt: skip
            return found, False
        if found.record.is_file() and not read_json(found.record)["is_open"]:
            settings = settings or told
            print(f"{found.name}: was stopped while it was opened, and is opened anew", flush=True)
            _remove(found)
        try:
            write_json(found.record, {"settings": list(settings), "is_open": False})
            # Twice forced: also in the place of one that was deleted without git's knowledge.
            # Without hooks: those of `dvc install` check data out, which has no cache there yet.
            add = ("worktree", "add", "--quiet", "--force", "--force", "--detach")
            _git(home, "-c", f"core.hooksPath={os.devnull}", *add, str(found.worktree))
            _copy_edits(home, found.root)
            _share_cache(home, found.root)
            set_params(found.root, settings)
            write_json(found.record, {"settings": list(settings), "is_open": True})
        except BaseException:
            _remove(found)
            raise
    return found, True


def close_experiment(experiment: Experiment) -> None:
    """Remove an experiment's worktree; what it saved stays in git and in the cache."""
    with git_lock(Path.cwd()):
        _remove(experiment)


def save(name: str) -> str:
    """Save the worktree that this process is in as the DVC experiment `name`; its commit.

    `dvc exp save` would do so by way of stashes and references that all worktrees share, and
    empty the worktree meanwhile. Here nothing but the experiment's own reference is written.
    Results are in the cache and in dvc.lock by then.
    """
    root = Path.cwd()
    with git_lock(root):
        base = _git(root, "rev-parse", "HEAD")
        index = Path(_git(root, "rev-parse", "--absolute-git-dir"), "experiment.index")
        index.unlink(missing_ok=True)
        told = {"GIT_INDEX_FILE": str(index)}
        try:
            _git(root, "read-tree", "HEAD", **told)
            _git(root, "add", "--all", "--", ".", **told)
            tree = _git(root, "write-tree", **told)
        finally:
            index.unlink(missing_ok=True)
        words = ("commit-tree", tree, "-p", base, "-m", f"Experiment {name}")
        commit = _git(root, *words, **_identity(root))
        _git(root, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    return commit


@contextmanager
def git_lock(folder: Path) -> Iterator[None]:
    """One process at a time over all worktrees of a repository: in the folder that they share."""
    with one_at_a_time(
        Path(folder, _git(folder, "rev-parse", "--git-common-dir"), "splatfix.lock")
    ):
        yield


def _free_name() -> str:
    number = 1
    while find(f"exp-{number}").worktree.exists():
        number += 1
    return f"exp-{number}"


def _check_ours(experiment: Experiment, home: Path) -> None:
    """Raise UserError when a work root that several repositories share holds another's."""
    folders = [
        Path(place, _git(place, "rev-parse", "--git-common-dir")).resolve()
        for place in (home, experiment.worktree)
    ]
    if folders[0] != folders[1] or not experiment.root.is_dir():
        raise UserError(
            experiment.worktree, "no experiment of this repository", fix="give another name"
        )


def _remove(experiment: Experiment) -> None:
    if (experiment.worktree / ".git").is_file():
        remove = ("worktree", "remove", "--force", "--force", str(experiment.worktree))
        subprocess.run(["git", *remove], capture_output=True)
    rmtree(experiment.worktree, ignore_errors=True)
    experiment.record.unlink(missing_ok=True)


def _copy_edits(home: Path, root: Path) -> None:
    """Bring along what differs from the last commit in the project, new files included."""
    deleted = _git(home, "ls-files", "-z", "--deleted").split("\0")
    changed = _git(home, "ls-files", "-z", "--modified", "--others", "--exclude-standard")
    staged = _git(home, "diff", "-z", "--name-only", "--relative", "--cached", "HEAD")
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


def _identity(root: Path) -> dict[str, str]:
    asked = subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], cwd=root, capture_output=True)
    if not asked.returncode:
        return {}
    return {f"GIT_{who}_{key}": _NOBODY[key] for who in ("AUTHOR", "COMMITTER") for key in _NOBODY}


def _git(folder: Path, *words: str, **env: str) -> str:
    """What git prints, without the line's end. Raises UserError with what it complains of."""
    ended = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, env={**os.environ, **env}
    )
    if ended.returncode:
        said = os.fsdecode(ended.stderr).strip()
        raise UserError(f"git {' '.join(words[:4])}", said or f"ended with {ended.returncode}")
    return os.fsdecode(ended.stdout).removesuffix("\n")
