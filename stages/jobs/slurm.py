"""A plan on SLURM: one array per stage, each task after exactly the tasks that it needs.

Stages of a group share an array, each job of which has several tasks. A stage with more tasks than
the cluster's limit becomes several arrays.

Arrays are submitted with a start time far in the future, and start now when all are accepted; a
refusal cancels the earlier ones. (SLURM does not check the resources of held jobs, so it would
refuse them too late.) Tasks of an array get their dependencies one by one (`scontrol update` splits
the array's record), so that a failed item cancels its dependants and nothing else.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stages.jobs.config import Resources, SlurmConfig
from stages.jobs.plan import Array
from stages.jobs.submission import Submission
from stages.run.errors import UserError
from stages.run.process.cores import at_most
from stages.run.process.stopping import SIGNALS

# Variables that SLURM sets for the current job.
JOB, ARRAY, TASK, RESTARTS, CPUS = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_CPUS_PER_TASK",
)
# The last job, which no task needs and whose name `slurm.stages` may have.
RECORD = "record"
# The user's setup, for slurm/job.sh, which runs it.
SETUP = "SPLATFIX_SETUP"
_TIMEOUT_S = 120
# States of jobs that run no more, whatever happens. `completing` is none: it may be requeued.
_ENDED = frozenset(
    {
        "boot_fail",
        "cancelled",
        "completed",
        "deadline",
        "failed",
        "node_fail",
        "out_of_memory",
        "preempted",
        "revoked",
        "timeout",
    }
)


def call(*words: str, script: str = "", **environment: str) -> str:
    """Output of one of SLURM's commands. Raises UserError when it fails."""
    variables = {**os.environ, **environment}
    try:
        ended = subprocess.run(
            words,
            input=script,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=variables,
            start_new_session=True,  # a Ctrl-C is for this process alone
        )
    except FileNotFoundError as error:
        raise UserError(
            words[0],
            "no such command",
            expected="SLURM's client commands",
            fix="log in to a node of the cluster, or run here: `python -m stages.submit --local`",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            words[0], f"no answer in {_TIMEOUT_S} s", fix="check `sinfo` and try again"
        ) from error
    if ended.returncode:
        message = ended.stderr.strip().removeprefix(f"{words[0]}: ").removeprefix("error: ")
        raise UserError(words[0], message or f"ended with {ended.returncode}")
    return ended.stdout


def sbatch_words(array: Array, config: SlurmConfig, submission: Submission) -> list[str]:
    """The call that submits an array with a start time in the future."""
    resources = array.resources
    logs = str(submission.logs).replace("%", "%%")  # SLURM fills in what follows a %
    throttle = f"%{config.throttle}" if config.throttle else ""
    words = [
        "sbatch",
        "--parsable",
        "--begin=now+30days",
        "--kill-on-invalid-dep=yes",
        "--requeue",
        "--open-mode=append",
        f"--job-name={array.name}",
        f"--array=0-{len(array.jobs) - 1}{throttle}",
        f"--chdir={submission.root}",
        f"--output={logs}/%A_%a.out",
        f"--error={logs}/%A_%a.err",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={resources.cpus}",
        f"--mem={resources.memory}",
        f"--time={resources.time}",
    ]
    if config.warn_s:
        words.append(f"--signal=B:USR1@{config.warn_s}")
    if resources.gpus:
        kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
        words.append(f"--gres=gpu:{kind}{resources.gpus}")
    return [*words, *placement_words(resources)]


def placement_words(resources: Resources) -> list[str]:
    """Options of sbatch for where a job may run."""
    optional = {"partition": resources.partition, "account": resources.account}
    optional |= {"exclude": ",".join(resources.exclude)}
    return [*(f"--{key}={value}" for key, value in optional.items() if value), *resources.extra]


def recorder_words(jobs: Sequence[str], config: SlurmConfig, submission: Submission) -> list[str]:
    """The call that submits the job after all others, however they end: it writes dvc.lock."""
    logs = str(submission.logs).replace("%", "%%")
    resources = config.resources(RECORD)
    return [
        *("sbatch", "--parsable", "--requeue", "--open-mode=append", f"--job-name={RECORD}"),
        f"--dependency=afterany:{':'.join(jobs)}",
        f"--chdir={submission.root}",
        *(f"--output={logs}/%j_{RECORD}.out", f"--error={logs}/%j_{RECORD}.err"),
        *("--nodes=1", "--ntasks=1", "--cpus-per-task=1"),
        *(f"--mem={resources.memory}", f"--time={resources.time}"),
        *placement_words(resources),
    ]


def recorder_script(config: SlurmConfig) -> str:
    """The script of the last job."""
    words = [sys.executable, "-m", "stages.submit", "record"]
    setup = setup_lines(config.resources(RECORD).setup)
    return "\n".join(["#!/bin/bash", *setup, f"exec {shlex.join(words)}", ""])


def max_array_size() -> int | None:
    """The cluster's limit of tasks in an array, or None."""
    match = re.search(r"^MaxArraySize\s*=\s*([1-9]\d*)", call("scontrol", "show", "config"), re.M)
    return int(match[1]) if match else None


def script(folder: Path, array: Array) -> str:
    """The script of an array: the user's lines, and `stages.job` in this Python.

    It gets a word for each job: the addresses of its tasks, each on a line.
    """
    jobs = ("\n".join(task.address for task in tasks) for tasks in array.jobs)
    words = [sys.executable, "-m", "stages.job", str(folder), *jobs]
    lines = ["#!/bin/bash", *setup_lines(array.resources.setup), f"exec {shlex.join(words)}", ""]
    return "\n".join(lines)


def part_words(folder: Path, chain: Sequence[str]) -> list[str]:
    """The command of some tasks of a job beside which others run."""
    return [sys.executable, "-m", "stages.job", str(folder), "\n".join(chain), "--part"]


def setup_lines(setup: Sequence[str]) -> list[str]:
    """Lines of bash that run the user's ones; the first that fails ends the job with a message.

    Raises UserError for one that bash cannot read.
    """
    lines = []
    for number, line in enumerate(setup, 1):
        read = subprocess.run(["bash", "-n"], input=line, capture_output=True, text=True)
        if read.returncode:
            reason = read.stderr.strip().removeprefix("bash: ")
            raise UserError(
                f"slurm, setup, line {number}",
                f"{line!r}: {reason}",
                expected="lines of bash",
                fix="correct it in `slurm:` of params.yaml",
            )
        message = f"slurm, setup, line {number}: {line!r} ended with"
        lines += [line, "", "splatfix_status=$?"]  # an empty line, in case of a \ at the end
        lines += [f'((splatfix_status == 0)) || {{ echo {shlex.quote(message)} "$splatfix_status"']
        lines[-1] += " >&2; exit 2; }"
    return lines


@dataclass(frozen=True)
class Dependency:
    """`needs` of a submitted array, or of one of its tasks."""

    job: str
    needs: str


def dependencies(array: Array, job: str, jobs: Mapping[str, str]) -> list[Dependency]:
    """Dependencies of a submitted array: one for all jobs if they are the same, else one each."""
    sizes = Counter(name.partition("_")[0] for name in set(jobs.values()))
    each = [afterok(array.needs(index), jobs, sizes) for index in range(len(array.jobs))]
    if len(set(each)) == 1:
        return [Dependency(job, each[0])] if each[0] else []
    return [Dependency(f"{job}_{index}", needs) for index, needs in enumerate(each) if needs]


def afterok(needs: Iterable[str], jobs: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    """SLURM's dependency on the success of tasks; a whole array is named once.

    `sizes` are numbers of jobs by array.

    >>> jobs = {"a@x": "7_0", "a@y": "7_1", "b@x": "8_0", "c@x": "8_0"}
    >>> afterok(["a@x", "b@x", "c@x"], jobs, {"7": 2, "8": 1})
    'afterok:7_0:8'
    """
    by_array: dict[str, dict[str, None]] = {}
    for need in needs:
        by_array.setdefault(jobs[need].partition("_")[0], {})[jobs[need]] = None
    names = [
        name
        for array, some in by_array.items()
        for name in ([array] if len(some) == sizes[array] else some)
    ]
    return "afterok:" + ":".join(names) if names else ""


def send(submission: Submission, config: SlurmConfig) -> Submission:
    """Submit all of a plan or nothing; returns the submission with the names of its jobs.

    Raises UserError with SLURM's message and the stage that it is about.
    """
    submission.logs.mkdir(parents=True, exist_ok=True)  # without it jobs fail without a log
    sent: dict[str, Array] = {}
    stage, recorder = "", ""
    try:
        for array in submission.plan.arrays(config, max_array_size()):
            stage = array.name
            words = sbatch_words(array, config, submission)
            with _uninterrupted():  # or a job is sent whose number nobody knows
                output = call(*words, script=script(submission.folder, array))
                sent[output.strip().partition(";")[0]] = array
        jobs = {
            task.address: f"{job}_{index}"
            for job, array in sent.items()
            for index, tasks in enumerate(array.jobs)
            for task in tasks
        }
        names = {task.address: one.name for one in sent.values() for task in one.tasks}
        for job, array in sent.items():
            stage = array.name
            for dependency in dependencies(array, job, jobs):
                update = f"jobid={dependency.job}", f"dependency={dependency.needs}"
                call("scontrol", "update", *update)
        stage, last = RECORD, recorder_words(list(sent), config, submission)
        with _uninterrupted():
            output = call(*last, script=recorder_script(config))
            recorder = output.strip().partition(";")[0]
        submission = replace(submission, jobs=jobs, names=names, recorder=recorder)
        submission.save()
        for job in reversed(sent):  # dependants first
            call("scontrol", "update", f"jobid={job}", "starttime=now")
    except BaseException as error:
        if sent:
            with _uninterrupted(), contextlib.suppress(UserError):
                call("scancel", *sent, *filter(None, [recorder]))
        if isinstance(error, UserError):
            raise UserError(
                f"{error.where}, stage {stage}",
                error.got,
                expected=error.expected,
                hint=f"nothing was submitted; {len(sent)} arrays accepted before were cancelled",
                fix=error.fix or "compare `slurm:` in params.yaml with `sinfo`",
            ) from error
        raise
    return submission


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay signals to stop until the end of the block. A mask would leave other threads out."""
    late: list[int] = []
    before = {number: signal.signal(number, lambda *got: late.append(got[0])) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in late:
            signal.raise_signal(number)


@dataclass(frozen=True)
class Job:
    """What SLURM says of a job."""

    state: str  # SLURM's word in lower case
    node: str
    reason: str
    name: str
    folder: str  # that it was submitted from

    @property
    def is_alive(self) -> bool:
        """Whether it waits, runs, or may come back into the queue."""
        return self.state not in _ENDED


# Names of jobs, such as 17_3.
Queue = Mapping[str, Job]


def queue() -> Queue:
    """All jobs that the cluster still knows."""
    lines = call("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%N|%j|%r|%Z")
    jobs = {}
    for line in lines.splitlines():
        job, state, node, name, reason, folder = line.split("|", 5)
        jobs[job] = Job(state.lower(), node, reason, name, folder)
    return jobs


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; SLURM cancels their dependants."""
    call("scancel", *jobs)


def own_job() -> str:
    """The name of the current job, such as 17_3 for a task of an array.

    The job number of an array's last task is the array's, which would name all of its tasks.
    """
    variables = os.environ
    if TASK not in variables:
        return variables[JOB]
    return f"{variables.get(ARRAY, variables[JOB])}_{variables[TASK]}"


def cores_of_job(parts: int = 1) -> dict[str, str]:
    """The variable that keeps a task to its part of the cores that its job asked for.

    Clusters that bind no jobs to cores let each see the whole node.
    """
    cores = os.environ.get(CPUS, "")
    return at_most(int(cores) // parts) if cores.isdecimal() else {}


def requeue(config: SlurmConfig, message: str) -> bool:
    """Whether the current job, which was stopped, runs again; puts it into the queue if necessary.

    Prints the message before, as SLURM kills the job at once.

    SLURM does so itself when a node fails, at a preemption without grace time and at `scontrol
    requeue`. A job that was cancelled, or queued `max_restarts` times, stays away.
    """
    job, restarts = own_job(), int(os.environ.get(RESTARTS, "0"))
    shown = call("scontrol", "show", "job", "--oneliner", job)
    fields = dict(re.findall(r"\b(JobState|Restarts)=(\S+)", shown))
    is_queued = int(fields.get("Restarts", restarts)) > restarts
    may_run_again = fields.get("JobState") == "RUNNING" and restarts < config.max_restarts
    if not (is_queued or may_run_again):
        return False
    print(message, flush=True)
    if not is_queued:
        call("scontrol", "requeue", job)
    return True
