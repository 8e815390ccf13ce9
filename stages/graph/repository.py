"""DVC's view of this repository: stages, which are stale and why, experiments.

Stages have DVC's names, such as `train@hi4d_pair15_fight`. DVC is called through its Python API
and by its commands, without a shell; its output is not parsed.
"""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.stage.cache import RunCacheNotFoundError

from stages.graph import once
from stages.graph.journal import Journal
from stages.graph.links import require_targets
from stages.graph.repository_lock import (
    busy_error,
    remove_broken_rwlock,
    repository_lock,
)
from stages.run import digests
from stages.run.errors import UserError, raise_all
from stages.run.process.processes import run_interruptibly
from stages.run.settings.params import did_you_mean

_FROM_UPSTREAM = "its inputs change"
_CONFLICT = "<<<<<<< "
_CLOCK_S = 1.0  # by which times of files may lag


@dataclass(frozen=True)
class StageStatus:
    """One stage of the graph, and how it differs from its last run."""

    name: str
    upstream: frozenset[str]  # the stages whose outs it reads
    changed: tuple[str, ...]  # differences from its last run, by DVC; empty if none
    in_run_cache: bool  # a result of the same inputs is cached, so nothing is computed
    out_bytes: int | None  # size of the outs of its last run
    locked_params: Mapping[str, Any]  # values of its params in its last run
    params: Mapping[str, Any]  # current values, by section or dotted key


@contextmanager
def opened() -> Iterator[Repo]:
    """DVC's view of the current folder. Raises UserError for errors of DVC."""
    # Otherwise DVC logs results in the cache that were only looked up.
    logging.getLogger("dvc").setLevel(logging.WARNING)
    once.install()
    try:
        with Repo() as repo:
            try:
                yield repo
            except LockError as error:
                if "blocked by" in str(error):
                    raise
                raise busy_error(repo.lock) from error
    except DvcException as error:
        reason = str(error) or type(error).__name__
        fix = "wait for it to end" if "blocked by" in reason else "run `dvc status`"
        if _CONFLICT in _lock_text():
            fix = "take one side, `git checkout --theirs dvc.lock`, and run what is stale then"
        raise UserError("DVC", reason, fix=fix) from error


def _lock_text() -> str:
    """dvc.lock of this folder; empty where it is none that can be read."""
    with suppress(OSError, UnicodeDecodeError):
        return Path("dvc.lock").read_text("utf-8")
    return ""


def stage_statuses(*, wait: bool = False) -> list[StageStatus]:
    """Every stage, upstream ones first. Brings the digests of the code up to date first.

    Raises UserError when another process holds DVC's lock, or waits for it, and for links to what
    is gone.
    """
    digests.bring_up_to_date()
    with opened() as repo, repository_lock(repo) if wait else repo.lock:
        remove_broken_rwlock(Path(repo.tmp_dir))
        Journal(Path(repo.root_dir)).take_in()
        upstream = {stage: list(repo.index.graph.successors(stage)) for stage in repo.index.graph}
        order = [stage for stage in TopologicalSorter(upstream).static_order() if stage.cmd]
        require_targets(order)
        statuses = []
        with once.reading(repo, order):
            for stage in order:
                changes = stage.status(check_updates=True).get(stage.addressing, [])
                statuses.append(_status(stage, upstream[stage], changes))
                once.forget_folders()
        return statuses


def due(stages: Sequence[StageStatus]) -> list[StageStatus]:
    """Stages that would run: changed ones and all downstream, whose inputs may change.

    The digests of the code are up to date already, so stage `code` alone makes no stage due.
    """
    names: set[str] = set()
    run_again: set[str] = set()
    for stage in stages:
        if stage.changed or stage.upstream & run_again:
            names.add(stage.name)
            run_again |= {stage.name} - {digests.STAGE}
    return [stage for stage in stages if stage.name in names]


def needed(stages: Sequence[StageStatus], target: str) -> list[StageStatus]:
    """A stage and all stages that it needs, directly or not."""
    by_name, names, waiting = {stage.name: stage for stage in stages}, set(), [target]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in names:
            names.add(name)
            waiting += by_name[name].upstream
    return [stage for stage in stages if stage.name in names]


def of_targets(stages: Sequence[StageStatus], targets: Sequence[str]) -> list[StageStatus]:
    """The stages that targets name, with or without their items, and all upstream of them.

    Raises UserError for names of no stage.
    """
    named: dict[str, list[str]] = {}
    for one in stages:
        for name in {one.name, one.name.partition("@")[0]}:
            named.setdefault(name, []).append(one.name)
    raise_all(no_such_stage(one, named) for one in targets if one not in named)
    wanted = {
        one.name for target in targets for name in named[target] for one in needed(stages, name)
    }
    return [stage for stage in stages if stage.name in wanted]


def no_such_stage(target: str, names: Iterable[str]) -> UserError:
    """The error of a target that is none of these names of stages, with or without their items."""
    known = sorted({known for name in names for known in (name, name.partition("@")[0])})
    return UserError(
        target or repr(target),
        "no such stage",
        expected="a stage of dvc.yaml, or `stage@item`",
        hint=did_you_mean(target, known),
        fix="`dvc stage list` names them",
    )


def experiments() -> dict[str, str]:
    """Revisions of the experiments that started from HEAD, by name."""
    with opened() as repo:
        return {name: rev for pairs in repo.experiments.ls().values() for name, rev in pairs}


def fetch(folder: str, rev: str, into: Path) -> None:
    """Copy a folder of the repository from a revision into the folder `into`."""
    from dvc.api import DVCFileSystem  # half as much to import as DVC itself

    with opened() as repo:
        DVCFileSystem(repo=repo.root_dir, rev=rev).get(folder, str(into / folder), recursive=True)


def run_experiment(
    name: str, settings: Sequence[str], target: str, log: Path, work: Path, *, queue: bool = False
) -> int:
    """Run or queue one experiment in a copy of the workspace; returns its exit code.

    DVC writes the settings into the workspace for a moment before it copies it, so a signal to stop
    must reach it as Ctrl-C, and let it restore the workspace.

    `work` keeps resume states, so that a killed experiment can resume.
    """
    command = [sys.executable, "-m", "dvc", "exp", "run", "--queue" if queue else "--temp"]
    command += ["--name", name, *(word for setting in settings for word in ("-S", setting)), target]
    log.parent.mkdir(parents=True, exist_ok=True)
    # Stages start as `python -m ...`; they must use this Python even if it is not on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"SPLATFIX_WORK": str(work.absolute()), "PATH": path}
    began = time.time() - _CLOCK_S
    try:
        return run_interruptibly(command, environment, log)
    except BaseException:
        # Stopped while it wrote a reference, DVC leaves the file that keeps others from writing it.
        for left in Path(".git", "refs", "exps").rglob("*.lock"):
            if left.stat().st_mtime >= began:
                left.unlink(missing_ok=True)
        raise


def _status(stage: Any, upstream: Sequence[Any], report: Sequence[Any]) -> StageStatus:
    sizes = [out.meta.size if out.meta else None for out in stage.outs]
    of_params = [dep for dep in stage.deps if hasattr(dep, "params")]
    before = {key: value for dep in of_params for key, value in (dep.hash_info.value or {}).items()}
    now = {key: value for dep in of_params for key, value in dep.read_params().items()}
    reasons: dict[str, list[str]] = {}  # by path
    if stage.addressing == digests.STAGE and any("changed deps" in entry for entry in report):
        reasons |= {str(out): [] for out in stage.outs}  # they were written just now
    elif report:
        reasons |= {str(out): [_FROM_UPSTREAM] for other in upstream for out in other.outs}
        reasons |= {str(dep): _code_changes(dep) for dep in stage.deps if _is_digest(dep)}
    changes = _changes(report, reasons, before, now)
    return StageStatus(
        stage.addressing,
        frozenset(other.addressing for other in upstream if other.cmd),
        tuple(dict.fromkeys(changes)),
        bool(report) and _in_run_cache(stage),
        None if None in sizes else sum(sizes),
        before,
        now,
    )


def _changes(
    report: Sequence[Any],
    reasons: Mapping[str, Sequence[str]],
    before: Mapping[str, Any],
    now: Mapping[str, Any],
) -> Iterator[str]:
    """The changes that DVC reports of a stage, in a few words each: `train.max_steps modified`.

    Args:
        report: of DVC's status for the stage.
        reasons: by path of a file that another stage writes; used instead of DVC's words.
        before: values of the stage's params in its last run.
        now: current values of its params.
    """
    for entry in report:
        if isinstance(entry, str):
            yield entry
            continue
        for kind, states in entry.items():
            for path, state in states.items():
                if path in reasons:
                    yield from reasons[path]
                elif kind == "changed outs":
                    yield "its results are missing or changed"
                elif isinstance(state, Mapping):
                    for key, change in state.items():
                        yield from _leaves(key, before.get(key), now.get(key), change)
                else:
                    yield f"{path} {state}"


def _leaves(key: str, before: Any, now: Any, change: str) -> Iterator[str]:
    """Params that differ within a section, which DVC compares as a whole."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            if before.get(name) != now.get(name):
                yield from _leaves(f"{key}.{name}", before.get(name), now.get(name), change)
    else:
        yield f"{key} {change}"


def _is_digest(dep: Any) -> bool:
    return Path(dep.def_path).parent == digests.FOLDER


def _code_changes(dep: Any) -> list[str]:
    """Changes of the code, such as `stages/splat/raster.py changed`, from the cached digests."""
    old = dep.hash_info.value
    cached = Path(dep.repo.cache.local.oid_to_path(old)) if old else None
    if cached is None or not cached.is_file():
        return ["its code is new or changed"]
    return digests.changes(cached.read_text(), Path(dep.fs_path).read_text())


def _in_run_cache(stage: Any) -> bool:
    """Whether results of the current inputs are cached. Removes the hashes of the stage's outs."""
    try:
        stage.save_deps()
        # Otherwise DVC takes the hashes of the last run for those of the current inputs.
        for out in stage.outs:
            out.hash_info = type(out.hash_info)()
        stage.repo.stage_cache.restore(stage, dry=True)
    # Also raised when a dep does not exist yet.
    except (RunCacheNotFoundError, FileNotFoundError, DvcException):
        return False
    return True
