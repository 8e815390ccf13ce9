"""Submission of a plan: from options of the command line to tasks here or on the cluster."""

import contextlib
import logging
import math
import socket
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.graph.pipeline import Needs, Pipeline
from stages.graph.repository import no_such_stage
from stages.jobs.config import SlurmConfig
from stages.jobs.experiment import close_experiment, open_experiment
from stages.jobs.local import run_local
from stages.jobs.monitor import unfinished
from stages.jobs.plan import Array, JobPlan
from stages.jobs.slurm import RECORD, SETUP, Queue, call, placement_words, queue, setup_lines
from stages.jobs.slurm import send as send_to_slurm
from stages.jobs.submission import LOGS, Submission, lock_of, new_folder, submissions
from stages.run.errors import UserError, raise_all
from stages.run.plurals import counted
from stages.run.process.gpus import visible_gpus
from stages.run.process.locks import alone
from stages.run.settings.fan_out import require_names
from stages.run.settings.params import Params, did_you_mean

_LOGGER = logging.getLogger(__name__)
KERNELS, SAVE = "kernels", "save"
KERNELS_COMMAND = ["python", "-m", "stages.kernels"]
SAVE_COMMAND = ["python", "-m", "stages.save"]
# What each task of a job has of its own stage; `gpus` are compared with the job's.
_OF_EACH_TASK = frozenset({"gpus", "wrap"})


@dataclass(frozen=True)
class SubmitOptions:
    """Options of `stages.submit`."""

    targets: list[str]
    local: bool
    jobs: int
    dry_run: bool = False
    throttle: int | None = None
    name: str | None = None
    set_param: Sequence[str] = ()


def send(options: SubmitOptions) -> int:
    """Run or submit what is stale; returns the exit code.

    Raises UserError when one of the stages is under way already, and when SLURM refuses.
    """
    with contextlib.ExitStack() as planning, contextlib.ExitStack() as unsent:
        root, name = _workspace(options, unsent)
        if not options.dry_run:
            planning.enter_context(alone(lock_of(root), math.inf))
        params = Params.read(root / "params.yaml")
        require_names(params)
        pipeline = Pipeline(root)
        if name:
            pipeline.link_inputs(Path.cwd())
        config = _config(params, options, pipeline)
        needs = pipeline.plan(options.targets, absent_is_fine=bool(name))
        plan = JobPlan.of(needs)
        if not options.dry_run:
            pipeline.record_code()
        if not plan.tasks:
            _LOGGER.info("nothing is stale")
            return 0
        _log_remotes(pipeline, needs)
        if name:
            plan = plan.with_last(SAVE, [*SAVE_COMMAND, name])
        plan = _with_kernels(plan, config, options.local)
        if options.dry_run:
            _LOGGER.info(plan_table(plan, config))
            return 0
        _refuse_running(root, plan)
        if name:
            pipeline.fetch_inputs(needs)
        executor = "local" if options.local else "slurm"
        submission = Submission(
            new_folder(),
            root,
            Path(LOGS).resolve(),
            executor,
            plan,
            {},
            host=socket.gethostname(),
        )
        if options.local:
            unsent.pop_all()
            return run_local(pipeline, submission, config, options.jobs, planning.close)
        sent = send_to_slurm(submission, config)
        unsent.pop_all()
    _LOGGER.info(plan_table(plan, config, sent.jobs))
    _LOGGER.info(
        "submitted %s as submission %s; states: python -m stages.submit status",
        counted(len(plan.tasks), "task"),
        sent.number,
    )
    return 0


def send_script(script: str, arguments: Sequence[str]) -> str:
    """Submit a script by sbatch; nodes, partition, account and setup are `slurm.default`'s."""
    resources = Params.read().section("slurm", SlurmConfig).default
    Path(LOGS).mkdir(exist_ok=True)
    words = ["sbatch", "--parsable", *placement_words(resources), script, *arguments]
    setup = "\n".join(setup_lines(resources.setup))
    return call(*words, **({SETUP: setup} if setup else {})).strip()


def plan_table(plan: JobPlan, config: SlurmConfig, jobs: dict[str, str] | None = None) -> str:
    """A line per array: its job, tasks, resources and the stages that it needs."""
    lines = []
    for array in plan.arrays(config):
        each = (need for index in range(len(array.jobs)) for need in array.needs(index))
        needs = dict.fromkeys(need.partition("@")[0] for need in each)
        resources = array.resources
        count, kind = resources.gpus, resources.gpu_type or "GPU"
        gpus = f"{count} {kind}" if count else "no GPU"
        sent = [jobs[task.address].partition("_")[0] for task in array.tasks] if jobs else []
        parts = [", ".join(dict.fromkeys(sent))] if sent else []
        parts += [f"{array.name} x {len(array.jobs)}{_content(array)}", gpus]
        parts += [f"{resources.cpus} CPUs"]
        parts += [resources.memory, resources.time]
        parts += [f"after {', '.join(needs)}"] if needs else []
        lines.append("  ".join(parts))
    return "\n".join(lines)


def _content(array: Array) -> str:
    """What the jobs of a group are made of, or those that are packed; empty: a task each."""
    stages = ", ".join(dict.fromkeys(task.stage for task in array.tasks))
    parts = [] if len(array.tasks) == len(array.jobs) else [counted(len(array.tasks), "task")]
    parts += [] if stages == array.name else [stages]
    return f" ({': '.join(parts)})" if parts else ""


def _workspace(options: SubmitOptions, unsent: contextlib.ExitStack) -> tuple[Path, str]:
    """Root of the stages and name of the experiment, whose new worktree is dropped if unsent."""
    if not (options.name or options.set_param):
        return Path.cwd(), ""
    experiment, is_new = open_experiment(options.name, options.set_param)
    if is_new:
        unsent.callback(close_experiment, experiment)
    return experiment.root, experiment.name


def _log_remotes(pipeline: Pipeline, needs: Needs) -> None:
    """Log which tasks are planned only because their results are missing, if remotes exist."""
    absent = pipeline.remotes and pipeline.without_results(needs)
    if absent:
        _LOGGER.info(
            "%d of %d tasks are planned only because their results are not here; `dvc pull` may "
            "bring them from %s",
            len(absent),
            len(needs),
            ", ".join(pipeline.remotes),
        )


def _config(params: Params, options: SubmitOptions, pipeline: Pipeline) -> SlurmConfig:
    config = params.section("slurm", SlurmConfig)
    stages = pipeline.stage_names()
    _require_groups(params, config, stages)
    known = {*stages, *config.group, KERNELS, SAVE, RECORD}
    raise_all(
        UserError(
            params.where(("slurm", "stages", name)),
            "no such stage",
            expected="a stage, or one item of it as `stage@item`",
            hint=did_you_mean(name.partition("@")[0], sorted(known)),
        )
        for name in config.stages
        if name.partition("@")[0] not in known
    )
    if options.throttle is not None:
        config = config.model_copy(update={"throttle": options.throttle})
    return config


def _require_groups(params: Params, config: SlurmConfig, stages: Collection[str]) -> None:
    """Raise UserError for groups of what is no stage, of one in two, and with a stage's name."""
    seen: set[str] = set()
    errors = []
    for name, members in config.group.items():
        where = params.where(("slurm", "group", name))
        if name in stages:
            errors.append(UserError(where, "a stage has this name", fix="name the group otherwise"))
        for one in members:
            if one not in stages:
                errors.append(no_such_stage(one, stages))
            elif one in seen:
                errors.append(UserError(where, f"{one} is in a group already", fix="take it out"))
            seen.add(one)
    errors += _unused_resources(params, config)
    errors += _unused_packs(params, config, stages)
    raise_all(errors)


def _unused_resources(params: Params, config: SlurmConfig) -> Iterator[UserError]:
    """Errors for resources of a stage in a group, whose jobs have the group's."""
    group_of = {stage: name for name, stages in config.group.items() for stage in stages}
    for name, override in config.stages.items():
        group = group_of.get(name.partition("@")[0])
        keys = sorted(override.model_dump(exclude_none=True).keys() - _OF_EACH_TASK)
        if group and keys:
            yield UserError(
                params.where(("slurm", "stages", name)),
                f"{', '.join(keys)} of a stage whose tasks run in jobs of slurm.group.{group}",
                fix=f"set slurm.stages.{group}, or take {name.partition('@')[0]} out of the group",
            )


def _unused_packs(
    params: Params, config: SlurmConfig, stages: Collection[str]
) -> Iterator[UserError]:
    """Errors for packs of what makes no jobs: neither a group nor a stage outside of groups."""
    group_of = {stage: name for name, members in config.group.items() for stage in members}
    known = sorted({*config.group, *stages} - group_of.keys())
    for name in config.pack:
        if name in group_of:
            group = group_of[name]
            got, fix = f"its tasks run in jobs of slurm.group.{group}", f"pack {group} instead"
        elif name not in known:
            got, fix = "no such stage or group", "correct the name, or take it out"
        else:
            continue
        yield UserError(
            params.where(("slurm", "pack", name)),
            got,
            expected="a group, or a stage in none",
            hint=did_you_mean(name, known),
            fix=fix,
        )


def _with_kernels(plan: JobPlan, config: SlurmConfig, is_local: bool) -> JobPlan:
    """Build gsplat's kernels before any task on a GPU: parallel builds break each other.

    Another repository, whose `slurm.stages` has no `kernels`, has none to build.
    """
    if KERNELS not in config.stages:
        return plan
    on_gpu = [task.address for task in plan.tasks if config.resources(task.address).gpus]
    if not on_gpu or (is_local and not visible_gpus()):
        return plan
    return plan.with_first(KERNELS, KERNELS_COMMAND, on_gpu)


def _refuse_running(root: Path, plan: JobPlan) -> None:
    """Raise UserError when a task of the plan runs already: two would write the same outs."""
    planned = {task.address for task in plan.tasks} - {KERNELS}
    sent = [submission for submission in submissions() if submission.root == root]
    known = _queue(sent)
    for submission in sent:
        running = sorted(planned & unfinished(submission, known))
        if running:
            raise UserError(
                ", ".join(running),
                f"under way in submission {submission.number}",
                fix="wait for it, or `python -m stages.submit cancel "
                f"--number {submission.number}`",
            )


def _queue(sent: Sequence[Submission]) -> Queue:
    """SLURM's jobs, if one of the submissions went to it."""
    on_slurm = [submission for submission in sent if submission.executor == "slurm"]
    if not on_slurm:
        return {}
    try:
        return queue()
    except UserError:
        # This machine may have no SLURM, as after a copy of the workspace.
        if all(submission.is_over for submission in on_slurm):
            return {}
        raise
