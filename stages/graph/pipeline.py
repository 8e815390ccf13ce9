"""DVC's side of a job: stale stages, their commands, and records of their results.

DVC's lock is held while something is read or recorded, never while a command runs: DVC's own
entries for running commands name processes of one host, and any command on another host discards
them, and with them a finished training. The deps of a stage are hashed before it runs, so that
edits during the run are not recorded with its result.
"""

import logging
import os
import shlex
import subprocess
from collections.abc import Collection, Iterator, Sequence
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
from dvc.stage.serialize import to_lockfile
from dvc.utils.hydra import apply_overrides

from stages.graph import lock_file, once
from stages.graph.journal import Journal
from stages.graph.links import require_targets
from stages.graph.repository import no_such_stage
from stages.graph.repository_lock import repository_lock
from stages.graph.waiting import waits
from stages.run import digests
from stages.run.errors import UserError, raise_all
from stages.run.settings.overrides import quoting
from stages.run.settings.params import Params, moved

# Characters that a shell interprets; commands are run as lists of words, without a shell.
_SHELL = set("|&;<>()$`\n*?[#~%!")

# Addresses of stages, in an order to run them, each with those that it needs.
Needs = dict[str, list[str]]


class Pipeline:
    """An opened DVC repository."""

    def __init__(self, root: Path):
        self.root = Path(root).resolve()
        logging.getLogger("dvc").setLevel(logging.WARNING)
        once.install()
        with _dvc_errors(self.root):
            self.repo = Repo(os.fspath(self.root))
        self._stages: dict[str, Any] = {}
        self._journal = Journal(self.root)

    def stage_names(self) -> set[str]:
        """Every stage of dvc.yaml without items; a stage may have none."""
        with _dvc_errors(self.root):
            return set(load_file(self.repo, os.fspath(self.root / PROJECT_FILE)).contents["stages"])

    def plan(self, targets: Sequence[str] = (), *, absent_is_fine: bool = False) -> Needs:
        """Stages that `dvc repro TARGETS` would run, each with the planned ones that it depends on.

        With `absent_is_fine` data that is only in the cache does not count as changed; data that
        is not there either is made again if it is a target or a planned stage reads it.
        Raises UserError for an unknown target, for a command that needs a shell, for links to what
        is gone, and for absent data that a planned stage reads and no stage makes.

        The digests of the code are brought up to date first. The stage that makes them is not part
        of a plan, see `record_code`.
        """
        once.bring_digests_up_to_date(self.root)
        if self.record():
            self.repo._reset()  # what it has read of dvc.lock
        with _dvc_errors(self.root), self._locked():
            graph = self.repo.index.graph
            self._stages = {_address(stage): stage for stage in graph}
            chosen = self._chosen(targets)
            order = plan_repro(graph, chosen)
            runnable = [
                stage for stage in order if _has_command(stage) and _address(stage) != digests.STAGE
            ]
            require_targets(runnable)
            planned: set[Any] = set()
            with once.reading(self.repo, runnable):
                for stage in runnable:
                    if planned & set(graph.successors(stage)) or stage.changed(absent_is_fine):
                        planned.add(stage)
                    once.forget_folders()
            if absent_is_fine:
                targeted = set(order if chosen is None else chosen)
                for stage in reversed(runnable):
                    is_needed = stage in targeted or planned & set(graph.predecessors(stage))
                    if stage not in planned and is_needed and not _is_available(stage):
                        planned.add(stage)
            raise_all(
                _missing(data, absent_is_fine)
                for data in order
                if not _has_command(data)
                and planned & set(graph.predecessors(data))
                and not _is_available(data, cache=absent_is_fine)
            )
            needs: dict[str, list[str]] = {}
            for stage in runnable:
                if stage in planned:
                    _command(stage)
                    needs[_address(stage)] = [
                        _address(dep) for dep in graph.successors(stage) if dep in planned
                    ]
        return needs

    def record_code(self) -> None:
        """Record the digests of the code as results of their stage, if they changed."""
        with _dvc_errors(digests.STAGE), self._locked():
            stage = self._stages.get(digests.STAGE)
            if stage is None or not stage.changed():
                return
            stage.save_deps()
        self.finish(digests.STAGE)
        self.record()

    @property
    def remotes(self) -> list[str]:
        """Names of DVC's remotes."""
        return list(self.repo.config["remote"])

    def without_results(self, needs: Needs) -> list[str]:
        """Planned stages that are up to date by their record, but whose results are absent."""
        absent: list[str] = []
        with _dvc_errors(self.root), self._locked():
            for address, before in needs.items():
                stage = self._stages[address]
                follows = set(before) <= set(absent)
                if follows and not stage.changed(allow_missing=True) and not _is_available(stage):
                    absent.append(address)
        return absent

    def link_inputs(self, home: Path) -> None:
        """Link inputs that come from neither git nor a stage, such as data copied by hand."""
        with _dvc_errors(self.root):
            outs = [Path(out.fs_path) for stage in self.repo.index.graph for out in stage.outs]
            for path in {
                Path(dep.fs_path) for stage in self.repo.index.graph for dep in stage.deps
            }:
                if not path.is_relative_to(self.root) or os.path.lexists(path):
                    continue
                source = home / path.relative_to(self.root)
                is_out = any(path.is_relative_to(out) or out.is_relative_to(path) for out in outs)
                if source.exists() and not is_out:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.symlink_to(source.resolve())

    def fetch_inputs(self, planned: Collection[str]) -> None:
        """Check out data from the cache that planned stages read and none of them makes."""
        with _dvc_errors(self.root), self._locked():
            graph = self.repo.index.graph
            stages = [stage for stage in graph if _address(stage) in planned]
            for dep in {dep for stage in stages for dep in graph.successors(stage)}:
                if _address(dep) not in planned:
                    self._fetch(dep)

    def _fetch(self, stage: Any) -> None:
        """Check out a stage's outs; those in no cache, such as raw data, are generated again."""
        stage.checkout(force=True, allow_missing=True)
        if any(out.persist and not out.exists for out in stage.outs):
            for dep in self.repo.index.graph.successors(stage):
                self._fetch(dep)
            if subprocess.run(_command(stage), cwd=self.root).returncode:
                raise UserError(
                    _address(stage), "its results are not in the workspace, and its command failed"
                )

    def begin(self, address: str) -> list[str] | None:
        """The words of a stage's command, or None if the result is in the workspace or the cache.

        Old results are removed, as DVC does.
        """
        once.bring_digests_up_to_date(self.root)
        with _dvc_errors(address), self._locked():
            if address not in self._stages and self._journal.has(self._lock_file, address):
                self._journal.take_in()
            stage = self._stage(address)
            with once.hashing_deps():
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

    def finish(self, address: str) -> list[str]:
        """Add a stage's results to the cache; returns inputs that were edited since it began.

        dvc.lock has them after `record`, by this process or a later one.
        """
        once.bring_digests_up_to_date(self.root)
        with _dvc_errors(address), self._locked():
            stage = self._stage(address)
            with once.hashing_deps():
                edited = [str(dep) for dep in stage.deps if dep.workspace_status()]
                stage.save_outs()
                stage.md5 = stage.compute_md5()
                if all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs):
                    self.repo.stage_cache.save(stage)
            stage.commit()
            once.forget_folders()
            lock = Path(stage.dvcfile._lockfile.path)
            if not self._journal.add(lock, to_lockfile(stage)):
                stage.dvcfile.dump_stages([stage], update_pipeline=False)
        return edited

    def record(self, *, every_s: float = 0.0) -> bool:
        """Write all finished stages, of other processes too, into dvc.lock at once.

        Returns whether there were any. Does nothing if dvc.lock is no older than `every_s` seconds.
        """
        if not waits(self.root) or self._journal.age_s(self._lock_file) < every_s:
            return False
        with _dvc_errors("dvc.lock"), self._locked():
            return self._journal.take_in()

    @property
    def _lock_file(self) -> Path:
        return (self.root / PROJECT_FILE).with_suffix(".lock")

    @property
    def cache_folder(self) -> Path:
        """DVC's cache, which workspaces of this repository can share."""
        return Path(self.repo.cache.local_cache_dir)

    def _chosen(self, targets: Sequence[str]) -> list[Any] | None:
        """Stages of targets: `stage`, `stage@item` or patterns of these; None for all."""
        every = {_address(stage): stage for stage in self.repo.index.graph}
        chosen: dict[str, Any] = {}
        for target in targets:
            names = [
                name
                for name in every
                if fnmatchcase(name, target) or name.partition("@")[0] == target
            ]
            if not names:
                raise no_such_stage(target, every)
            chosen |= {name: every[name] for name in names}
        return list(chosen.values()) or None

    def _stage(self, address: str) -> Any:
        """A stage by its address; without a plan it alone is read of dvc.lock."""
        if address not in self._stages:
            file = load_file(self.repo, os.fspath(self.root / PROJECT_FILE))
            alone = lock_file.load(self._lock_file, [address])
            if alone is not None:
                file.lockfile_contents = file._lockfile.validate(alone)
            self._stages[address] = file.stages[address]
        return self._stages[address]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # DVC expects paths relative to its root. Nothing is staged in git: its index has its own
        # lock, which the user may hold.
        scm = self.repo.scm_context(autostage=False, quiet=True)
        with chdir(self.root), repository_lock(self.repo), scm:
            yield


def set_params(root: Path, settings: Sequence[str]) -> None:
    """Change params.yaml as `dvc exp run --set-param`; `file:key=value` changes another file."""
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
        for override in overrides:
            try:
                with _dvc_errors("--set-param"):
                    apply_overrides(path, [override])
            except UserError as error:
                keys = tuple(override.partition("=")[0].split("."))
                hint = moved(Params.read(path).raw, keys)
                raise UserError(
                    "--set-param", f"{override}: {error.got}", hint=hint, fix=quoting(override)
                ) from error


def _address(stage: Any) -> str:
    """DVC's address relative to the root, independent of the current folder."""
    place, name = stage.path_in_repo, getattr(stage, "name", None)
    return name if name and place == PROJECT_FILE else f"{place}:{name}" if name else place


def _has_command(stage: Any) -> bool:
    """Whether a command makes its outs, not the user or an import."""
    return isinstance(stage, PipelineStage) and not stage.frozen


def _is_available(stage: Any, *, cache: bool = True) -> bool:
    """Whether all results of a stage are in the workspace, or in the cache."""
    return all(
        (cache and out.use_cache and not out.changed_cache()) or out.exists for out in stage.outs
    )


def _missing(data: Any, cache: bool) -> UserError:
    is_cached = not cache and _is_available(data)
    return UserError(
        _address(data),
        "its data is not in the workspace" + ("" if is_cached else ", nor in the cache"),
        fix=f"`dvc {'checkout' if is_cached else 'pull'} {_address(data)}`",
    )


def _command(stage: Any) -> list[str]:
    command = stage.cmd
    if not isinstance(command, str) or _SHELL & set(command):
        raise UserError(
            f"dvc.yaml, stage {stage.addressing}",
            f"cmd: {command!r}",
            expected="one command that needs no shell, since jobs are run without one",
        )
    return shlex.split(command)


@contextmanager
def _dvc_errors(where: object) -> Iterator[None]:
    """Turn DVC's errors into UserError, with their causes."""
    try:
        yield
    except DvcException as error:
        messages = [str(error)]
        cause: BaseException | None = error.__cause__
        while cause is not None:
            messages += [str(cause)] if str(cause) not in messages[-1] else []
            cause = cause.__cause__
        message = ": ".join(filter(None, messages))
        fix = "wait for it to end" if "blocked by" in message else ""
        raise UserError(where, message, fix=fix) from error
