"""From a wish on the command line to a plan that runs here or on the cluster."""

import contextlib
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.jobs.config import SlurmConfig
from stages.jobs.experiment import close_experiment, open_experiment
from stages.jobs.local import run_local, visible_gpus
from stages.jobs.monitor import unfinished
from stages.jobs.pipeline import Pipeline
from stages.jobs.plan import Plan
from stages.jobs.slurm import call, where_words
from stages.jobs.slurm import send as send_to_slurm
from stages.jobs.submission import LOGS, Submission, lock_of, new_folder, submissions
from stages.run.errors import UserError, raise_all
from stages.run.process.locks import alone
from stages.run.settings.fan_out import require_names
from stages.run.settings.params import Params, did_you_mean

KERNELS, SAVE = "kernels", "save"
KERNELS_COMMAND = ["python", "-m", "stages.kernels"]
SAVE_COMMAND = ["python", "-m", "stages.save"]


@dataclass(frozen=True)
class SubmitOptions:
    """What the command line asks for."""

    targets: list[str]
    local: bool
    jobs: int
    dry_run: bool
    throttle: int | None
    name: str | None
    set_param: list[str]


def send(wish: SubmitOptions) -> int:
    """Run or send what is stale; returns the exit code.

    Raises UserError when a stage of it is under way already, and when SLURM refuses.
    """
    with contextlib.ExitStack() as planning, contextlib.ExitStack() as unsent:
        root, name = _workspace(wish, unsent)
        require_names(Params.read(root / "params.yaml"))
        if not wish.dry_run:
            planning.enter_context(alone(lock_of(root), math.inf))
        pipeline = Pipeline(root)
        if name:
            pipeline.link_inputs(Path.cwd())
        config = _config(root, wish, pipeline)
        plan = pipeline.plan(wish.targets, absent_is_fine=bool(name))
        if not wish.dry_run:
            pipeline.record_code()
        if not plan.tasks:
            print("nothing is stale")
            return 0
        _tell_of_remotes(pipeline, plan)
        if name:
            plan = plan.with_last(SAVE, [*SAVE_COMMAND, name])
        plan = _with_kernels(plan, config, wish.local)
        if wish.dry_run:
            print(described(plan, config))
            return 0
        _refuse_twice(root, plan)
        if name:
            pipeline.fetch_inputs(plan)
        submission = Submission(
            new_folder(), root, Path(LOGS).resolve(), "local" if wish.local else "slurm", plan, {},
            host=socket.gethostname(),
        )  # fmt: skip
        if wish.local:
            unsent.pop_all()
            return run_local(pipeline, submission, config, wish.jobs, planning.close)
        sent = send_to_slurm(submission, config)
        unsent.pop_all()
    print(described(plan, config, sent.jobs))
    print(f"sent {len(plan.tasks)} tasks as submission {sent.number}; how they go: "
          "python -m stages.submit status")  # fmt: skip
    return 0


def send_script(script: str, arguments: Sequence[str]) -> str:
    """Send a script by sbatch; nodes, partition and account come from `slurm.default`."""
    wanted = Params.read().section("slurm", SlurmConfig).default
    Path(LOGS).mkdir(exist_ok=True)
    words = ["sbatch", "--parsable", *where_words(wanted), script, *arguments]
    return call(*words).strip()


def described(plan: Plan, config: SlurmConfig, jobs: dict[str, str] | None = None) -> str:
    """A line an array: its job, tasks, resources and the stages that it waits for."""
    lines = []
    for array in plan.arrays(config):
        needs = {need.partition("@")[0]: None for task in array.tasks for need in task.needs}
        wanted = array.resources
        gpus = f"{wanted.gpus} {wanted.gpu_type or 'GPU'}" if wanted.gpus else "no GPU"
        sent = [jobs[task.address].partition("_")[0] for task in array.tasks] if jobs else []
        parts = [", ".join(dict.fromkeys(sent))] if sent else []
        parts += [f"{array.stage} x {len(array.tasks)}", gpus, f"{wanted.cpus} CPUs"]
        parts += [wanted.memory, wanted.time]
        parts += [f"after {', '.join(needs)}"] if needs else []
        lines.append("  ".join(parts))
    return "\n".join(lines)


def _workspace(wish: SubmitOptions, unsent: contextlib.ExitStack) -> tuple[Path, str]:
    """Where the stages run, and the experiment's name; a new worktree goes if nothing is sent."""
    if not (wish.name or wish.set_param):
        return Path.cwd(), ""
    experiment, is_new = open_experiment(wish.name, wish.set_param)
    if is_new:
        unsent.callback(close_experiment, experiment)
    return experiment.root, experiment.name


def _tell_of_remotes(pipeline: Pipeline, plan: Plan) -> None:
    """Say what is planned only because its results are nowhere here, if a remote may have them."""
    absent = pipeline.remotes and pipeline.only_absent(plan)
    if absent:
        print(
            f"{len(absent)} of {len(plan.tasks)} tasks are planned only because their results are "
            f"not here; `dvc pull` may bring them from {', '.join(pipeline.remotes)}"
        )


def _config(root: Path, wish: SubmitOptions, pipeline: Pipeline) -> SlurmConfig:
    params = Params.read(root / "params.yaml")
    config = params.section("slurm", SlurmConfig)
    known = {*pipeline.stage_names(), KERNELS, SAVE}
    raise_all(
        UserError(
            params.where(("slurm", "stages", name)), "no such stage",
            expected="a stage, or one item of it as `stage@item`",
            hint=did_you_mean(name.partition("@")[0], sorted(known)),
        )
        for name in config.stages
        if name.partition("@")[0] not in known
    )  # fmt: skip
    if wish.throttle is not None:
        config = config.model_copy(update={"throttle": wish.throttle})
    return config


def _with_kernels(plan: Plan, config: SlurmConfig, is_local: bool) -> Plan:
    """Build gsplat's kernels before any task on a GPU: tasks that build together break them."""
    on_gpu = [task.address for task in plan.tasks if config.resources(task.address).gpus]
    if not on_gpu or (is_local and not visible_gpus()):
        return plan
    return plan.with_first(KERNELS, KERNELS_COMMAND, on_gpu)


def _refuse_twice(root: Path, plan: Plan) -> None:
    """Raise UserError when a task of the plan is under way: two would write the same outs."""
    planned = {task.address for task in plan.tasks} - {KERNELS}
    for submission in submissions():
        twice = sorted(planned & unfinished(submission)) if submission.root == root else []
        if twice:
            raise UserError(
                ", ".join(twice), f"under way in submission {submission.number}",
                fix="wait for it, or `python -m stages.submit cancel "
                f"--number {submission.number}`",
            )  # fmt: skip
