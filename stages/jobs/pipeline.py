"""DVC's side of a job: which stages are stale, what one runs, and the record of what it made.

DVC's lock is held while something is read or recorded, never
while a command runs: DVC's own entries for running commands name processes of one host, and any
command on another host throws them out, and with them a finished training. What a stage depends
on is hashed before it runs, so that an edit meanwhile is not recorded as what made the result.
"""

import logging
import os
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dvc.dvcfile import PROJECT_FILE, load_file
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from dvc.stage import PipelineStage
from dvc.stage.cache import RunCacheNotFoundError
from dvc.utils.hydra import apply_overrides

from stages.jobs.plan import JobPlan
from stages.run import digests
from stages.run.errors import UserError, raise_all
from stages.run.settings.overrides import quoting
from stages.run.settings.params import Params, did_you_mean, moved

# What a shell would act on; commands are run as lists of words, without one.
_SHELL = set("|&;<>()$`\n*?[#~%!")


class Pipeline:
    """An opened DVC repository."""

    def __init__(self, root: Path):
        self.root = Path(root).resolve()
        logging.getLogger("dvc").setLevel(logging.WARNING)
        with _told(self.root):
            self.repo = Repo(os.fspath(self.root), _wait_for_lock=True)
        self._stages: dict[str, Any] = {}
        self._unrecorded: list[Any] = []

    def stage_names(self) -> set[str]:
        """Every stage of dvc.yaml without its items, of which there may be none."""
        with _told(self.root):
            return set(load_file(self.repo, os.fspath(self.root / PROJECT_FILE)).contents["stages"])

    def plan(self, targets: Sequence[str] = (), *, absent_is_fine: bool = False) -> JobPlan:
        """What `dvc repro TARGETS` would run: changed stages and all that follow from them.

        With `absent_is_fine` data that is only in the cache does not count as changed; data that
        is not there either is made again where a target or a planned stage asks for it.
        Raises UserError for an unknown target, for a command that only a shell understands, and
        for data that a planned stage reads, no stage makes, and this workspace does not have.

        The digests of the code are brought up to date first. The stage that makes them is no part
        of a plan, see `record_code`.
        """
        digests.bring_up_to_date(self.root)
        with _told(self.root), self._locked():
            graph = self.repo.index.graph
            self._stages = {_address(stage): stage for stage in graph}
            chosen = self._chosen(targets)
            order = plan_repro(graph, chosen)
            made = [one for one in order if _is_made(one) and _address(one) != digests.STAGE]
            planned: set[Any] = set()
            for stage in made:
                if planned & set(graph.successors(stage)) or stage.changed(absent_is_fine):
                    planned.add(stage)
            if absent_is_fine:
                targeted = set(order if chosen is None else chosen)
                for stage in reversed(made):
                    asked = stage in targeted or planned & set(graph.predecessors(stage))
                    if stage not in planned and asked and not _is_at_hand(stage):
                        planned.add(stage)
            raise_all(
                _missing(data, absent_is_fine)
                for data in order
                if not _is_made(data)
                and planned & set(graph.predecessors(data))
                and not _is_at_hand(data, cache=absent_is_fine)
            )
            needs: dict[str, list[str]] = {}
            for stage in made:
                if stage in planned:
                    _command(stage)
                    needs[_address(stage)] = [
                        _address(one) for one in graph.successors(stage) if one in planned
                    ]
        return JobPlan.of(needs)

    def record_code(self) -> None:
        """Record the digests of the code as the results of their stage, where they are new."""
        with _told(digests.STAGE), self._locked():
            stage = self._stages.get(digests.STAGE)
            if stage is None or not stage.changed():
                return
            stage.save_deps()
        self.finish(digests.STAGE, record=True)

    @property
    def remotes(self) -> list[str]:
        """Names of DVC's remotes."""
        return list(self.repo.config["remote"])

    def tasks_without_results(self, plan: JobPlan) -> list[str]:
        """Tasks whose record says that they are up to date, but whose results are not here."""
        found: list[str] = []
        with _told(self.root), self._locked():
            for task in plan.tasks:
                stage = self._stages[task.address]
                follows = set(task.needs) <= set(found)
                if follows and not stage.changed(allow_missing=True) and not _is_at_hand(stage):
                    found.append(task.address)
        return found

    def link_inputs(self, home: Path) -> None:
        """Link inputs that neither git nor a stage brings, such as data laid by hand."""
        with _told(self.root):
            outs = [Path(out.fs_path) for stage in self.repo.index.graph for out in stage.outs]
            for path in {
                Path(dep.fs_path) for stage in self.repo.index.graph for dep in stage.deps
            }:
                if not path.is_relative_to(self.root) or os.path.lexists(path):
                    continue
                theirs = home / path.relative_to(self.root)
                is_made = any(path.is_relative_to(out) or out.is_relative_to(path) for out in outs)
                if theirs.exists() and not is_made:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.symlink_to(theirs.resolve())

    def fetch_inputs(self, plan: JobPlan) -> None:
        """Put what the plan's tasks read and no task makes into the workspace, from the cache."""
        planned = {task.address for task in plan.tasks}
        with _told(self.root), self._locked():
            graph = self.repo.index.graph
            stages = [stage for stage in graph if _address(stage) in planned]
            for one in {one for stage in stages for one in graph.successors(stage)}:
                if _address(one) not in planned:
                    self._fetch(one)

    def _fetch(self, stage: Any) -> None:
        """Put a stage's outs into the workspace; what no cache keeps, as raw data, is laid anew."""
        stage.checkout(force=True, allow_missing=True)
        if any(out.persist and not out.exists for out in stage.outs):
            for one in self.repo.index.graph.successors(stage):
                self._fetch(one)
            if subprocess.run(_command(stage), cwd=self.root).returncode:
                raise UserError(_address(stage), "its results are not here, and it failed")

    def begin(self, address: str) -> list[str] | None:
        """The words of a stage's command, or None where the result is there or in the cache.

        Old results are removed as DVC removes them.
        """
        digests.bring_up_to_date(self.root)
        with _told(address), self._locked():
            stage = self._stage(address)
            if not stage.changed():
                return None
            stage.remove_outs(ignore_remove=False, force=False)
            try:
                self.repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                stage.save_deps()
                return _command(stage)
        self.finish(address)
        return None

    def finish(self, address: str, *, record: bool = False) -> list[str]:
        """Put a stage's results into the cache; returns inputs that were edited since it began.

        Without `record`, `self.record` writes dvc.lock later. Should that never come, the run
        cache knows the result.
        """
        digests.bring_up_to_date(self.root)
        with _told(address), self._locked():
            stage = self._stage(address)
            edited = [str(dep) for dep in stage.deps if dep.workspace_status()]
            stage.save_outs()
            stage.md5 = stage.compute_md5()
            if all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs):
                self.repo.stage_cache.save(stage)
            stage.commit()
            self._unrecorded.append(stage)
            if record:
                self._write()
        return edited

    def record(self) -> None:
        """Write all finished stages into dvc.lock at once: each writing takes DVC a second."""
        if self._unrecorded:
            with _told("dvc.lock"), self._locked():
                self._write()

    def _write(self) -> None:
        self._unrecorded[0].dvcfile.dump_stages(self._unrecorded, update_pipeline=False)
        self._unrecorded = []

    @property
    def cache_folder(self) -> Path:
        """Where results of all workspaces of this repository may lie together."""
        return Path(self.repo.cache.local_cache_dir)

    def _chosen(self, targets: Sequence[str]) -> list[Any] | None:
        """Stages that targets name: `stage`, `stage@item` or patterns of these; None for all."""
        every = {_address(stage): stage for stage in self.repo.index.graph}
        found: dict[str, Any] = {}
        for target in targets:
            names = [
                name
                for name in every
                if fnmatchcase(name, target) or name.partition("@")[0] == target
            ]
            if not names:
                known = sorted({*every, *(name.partition("@")[0] for name in every)})
                raise UserError(
                    target,
                    "no such stage",
                    expected="a stage of dvc.yaml, or `stage@item`",
                    hint=did_you_mean(target, known),
                    fix="`dvc stage list` names them",
                )
            found |= {name: every[name] for name in names}
        return list(found.values()) or None

    def _stage(self, address: str) -> Any:
        if address not in self._stages:
            path = os.fspath(self.root / PROJECT_FILE)
            self._stages[address] = self.repo.stage.load_one(path, address)
        return self._stages[address]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # DVC takes paths as they are seen from its root. Nothing is staged in git: its index has a
        # lock of its own, which may be the user's.
        scm = self.repo.scm_context(autostage=False, quiet=True)
        with chdir(self.root), self.repo.lock, scm:
            yield


def set_params(root: Path, settings: Sequence[str]) -> None:
    """Change params.yaml as `dvc exp run --set-param` does; `file:key=value` names another file."""
    by_file: dict[str, list[str]] = {}
    for setting in settings:
        before, colon, after = setting.partition(":")
        is_file = bool(colon) and "=" not in before
        by_file.setdefault(before if is_file else "params.yaml", []).append(
            after if is_file else setting
        )
    for name, overrides in by_file.items():
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()) or not path.is_file():
            raise UserError("--set-param", name, expected="a params file of the repository")
        for one in overrides:
            try:
                with _told("--set-param"):
                    apply_overrides(path, [one])
            except UserError as error:
                keys = tuple(one.partition("=")[0].split("."))
                hint = moved(Params.read(path).raw, keys)
                raise UserError(
                    "--set-param", f"{one}: {error.got}", hint=hint, fix=quoting(one)
                ) from error


def _address(stage: Any) -> str:
    """DVC's address as it is at the root, whatever folder this process is in."""
    place, name = stage.path_in_repo, getattr(stage, "name", None)
    return name if name and place == PROJECT_FILE else f"{place}:{name}" if name else place


def _is_made(stage: Any) -> bool:
    """Whether a command makes it, and not the user or an import."""
    return isinstance(stage, PipelineStage) and not stage.frozen


def _is_at_hand(stage: Any, *, cache: bool = True) -> bool:
    """Whether all results of a stage are in the workspace, or in the cache."""
    return all(
        (cache and out.use_cache and not out.changed_cache()) or out.exists for out in stage.outs
    )


def _missing(data: Any, cache: bool) -> UserError:
    at_hand = not cache and _is_at_hand(data)
    return UserError(
        _address(data),
        "its data is not here" + ("" if at_hand else ", nor in the cache"),
        fix=f"`dvc {'checkout' if at_hand else 'pull'} {_address(data)}`",
    )


def _command(stage: Any) -> list[str]:
    command = stage.cmd
    if not isinstance(command, str) or _SHELL & set(command):
        raise UserError(
            f"dvc.yaml, stage {stage.addressing}",
            f"cmd: {command!r}",
            expected="one command that needs no shell, as jobs are run without one",
        )
    return shlex.split(command)


@contextmanager
def _told(where: object) -> Iterator[None]:
    """DVC's errors as ours, with their causes."""
    try:
        yield
    except DvcException as error:
        said = [str(error)]
        cause: BaseException | None = error.__cause__
        while cause is not None:
            said += [str(cause)] if str(cause) not in said[-1] else []
            cause = cause.__cause__
        raise UserError(where, ": ".join(filter(None, said))) from error
