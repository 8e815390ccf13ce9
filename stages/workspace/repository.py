"""This repository as DVC knows it: stages, what is stale and why, experiments.

Stages go by DVC's names, such as `train@hi4d_pair15_fight`. DVC is asked through its Python
interface and through its commands with lists of words; nothing parses what it prints.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import RunCacheNotFoundError

from stages.run import digests
from stages.run.errors import UserError

_FROM_UPSTREAM = "what it reads changes"


@dataclass(frozen=True)
class StageStatus:
    """One stage of the graph."""

    name: str
    upstream: frozenset[str]  # the stages whose outs it reads
    changed: tuple[str, ...]  # what DVC finds changed in it; empty where nothing is
    in_run_cache: bool  # a result of the same inputs is kept, so that nothing is computed
    out_bytes: int | None  # size of its outs when it last ran
    locked_params: Mapping[str, Any]  # values of its params when it last ran
    params: Mapping[str, Any]  # and now, by section or dotted key


@contextmanager
def opened() -> Iterator[Repo]:
    """DVC's view of the current folder. Raises UserError for every error of DVC's own."""
    # Else it tells of results in the cache that it only looked for.
    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        reason = str(error) or type(error).__name__
        fix = "wait for it to end" if "blocked by" in reason else "run `dvc status`"
        raise UserError("DVC", reason, fix=fix) from error


def stage_statuses() -> list[StageStatus]:
    """Every stage, upstream ones first. Brings the digests of the code up to date before."""
    digests.bring_up_to_date()
    with opened() as repo:
        graph, told = repo.index.graph, repo.status()
        upstream = {stage: list(graph.successors(stage)) for stage in graph}
        order = [one for one in TopologicalSorter(upstream).static_order() if one.cmd]
        return [_step(one, upstream[one], told.get(one.addressing, [])) for one in order]


def due(steps: Sequence[StageStatus]) -> list[StageStatus]:
    """Those that would run: changed ones and, as their inputs may change, all after them.

    What follows from the digests of the code is known: they are up to date already.
    """
    names: set[str] = set()
    for step in steps:
        if step.changed or step.upstream & names - {digests.STAGE}:
            names.add(step.name)
    return [step for step in steps if step.name in names]


def needed(steps: Sequence[StageStatus], target: str) -> list[StageStatus]:
    """A stage and all that it needs, directly or not."""
    by_name, names, waiting = {step.name: step for step in steps}, set(), [target]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in names:
            names.add(name)
            waiting += by_name[name].upstream
    return [step for step in steps if step.name in names]


def experiments() -> dict[str, str]:
    """Revisions of the experiments that started from HEAD, by name."""
    with opened() as repo:
        return {name: rev for found in repo.experiments.ls().values() for name, rev in found}


def head() -> str:
    """The commit that experiments start from. Raises UserError when there is none."""
    with opened() as repo:
        return repo.scm.get_rev()


def fetch(folder: str, rev: str, into: Path) -> None:
    """Copy a folder of the repository as it was in a revision."""
    with opened() as repo:
        DVCFileSystem(repo=repo.root_dir, rev=rev).get(folder, str(into / folder), recursive=True)


def run_experiment(
    name: str, settings: Sequence[str], target: str, log: Path, work: Path, *, queue: bool = False
) -> int:
    """Run or queue one experiment in a copy of the workspace; its exit code.

    `work` keeps resume states, so that a killed experiment goes on where it was.
    """
    command = [sys.executable, "-m", "dvc", "exp", "run", "--queue" if queue else "--temp"]
    command += ["--name", name, *(word for one in settings for word in ("-S", one)), target]
    log.parent.mkdir(parents=True, exist_ok=True)
    # Stages are started as `python -m ...`: by this Python, also where its folder is not on PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"SPLATFIX_WORK": str(work.absolute()), "PATH": path}
    with log.open("w") as out:
        return subprocess.run(command, env=environment, stdout=out, stderr=out).returncode


def _step(stage: Any, upstream: Sequence[Any], told: Sequence[Any]) -> StageStatus:
    sizes = [out.meta.size if out.meta else None for out in stage.outs]
    of_params = [dep for dep in stage.deps if hasattr(dep, "params")]
    before = {key: value for dep in of_params for key, value in (dep.hash_info.value or {}).items()}
    now = {key: value for dep in of_params for key, value in dep.read_params().items()}
    reasons: dict[str, list[str]] = {}  # by path
    if stage.addressing == digests.STAGE and any("changed deps" in one for one in told):
        reasons |= {str(out): [] for out in stage.outs}  # they were written just now
    else:
        reasons |= {str(out): [_FROM_UPSTREAM] for one in upstream for out in one.outs}
        reasons |= {str(dep): _code_changes(dep) for dep in stage.deps if _is_digest(dep)}
    changes = _changes(told, reasons, before, now)
    return StageStatus(
        stage.addressing,
        frozenset(one.addressing for one in upstream if one.cmd),
        tuple(dict.fromkeys(changes)),
        bool(told) and _in_run_cache(stage),
        None if None in sizes else sum(sizes),
        before,
        now,
    )


def _changes(
    told: Sequence[Any],
    reasons: Mapping[str, Sequence[str]],
    before: Mapping[str, Any],
    now: Mapping[str, Any],
) -> Iterator[str]:
    """DVC's report on a stage in a few words each, such as `train.max_steps modified`.

    What another stage writes changes with that stage, which says why: `reasons` has them by path.
    """
    for one in told:
        if isinstance(one, str):
            yield one
            continue
        for kind, found in one.items():
            for path, state in found.items():
                if path in reasons:
                    yield from reasons[path]
                elif kind == "changed outs":
                    yield "its results are missing or changed"
                elif isinstance(state, Mapping):
                    for key, what in state.items():
                        yield from _leaves(key, before.get(key), now.get(key), what)
                else:
                    yield f"{path} {state}"


def _leaves(key: str, before: Any, now: Any, what: str) -> Iterator[str]:
    """The params that differ inside a section that DVC compares as a whole."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            if before.get(name) != now.get(name):
                yield from _leaves(f"{key}.{name}", before.get(name), now.get(name), what)
    else:
        yield f"{key} {what}"


def _is_digest(dep: Any) -> bool:
    return Path(dep.def_path).parent == digests.FOLDER


def _code_changes(dep: Any) -> list[str]:
    """What changed in the code, such as `stages/splat/raster.py changed`, where both are known."""
    old = dep.hash_info.value
    kept = Path(dep.repo.cache.local.oid_to_path(old)) if old else None
    if kept is None or not kept.is_file():
        return ["its code is new or changed"]
    return digests.changes(kept.read_text(), Path(dep.fs_path).read_text())


def _in_run_cache(stage: Any) -> bool:
    """Whether results of the present inputs are kept. Leaves the stage's outs without hashes."""
    try:
        stage.save_deps()
        # Else DVC takes the hashes of the last run for those of these inputs.
        for out in stage.outs:
            out.hash_info = type(out.hash_info)()
        stage.repo.stage_cache.restore(stage, dry=True)
    # Also where a dep is still to be made.
    except (RunCacheNotFoundError, FileNotFoundError, DvcException):
        return False
    return True
