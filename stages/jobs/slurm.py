"""A plan on SLURM: one array a stage, each task after exactly those that it needs.

A stage with more tasks than the cluster lets an array have becomes several.

Arrays are sent to begin far in the future, and begin now when all are accepted; a refusal cancels
what was sent. (SLURM does not look at what a held job asks for, so that its refusal would come too
late.) Tasks of an array get their dependencies one by one (`scontrol update` splits the array's
record), so that a failed item cancels what depends on it and nothing else.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stages.jobs.config import Resources, SlurmConfig
from stages.jobs.plan import Array
from stages.jobs.submission import Submission
from stages.run.errors import UserError

# Of the job that runs now; the cluster sets them.
JOB, ARRAY, TASK, RESTARTS = (
    "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT",
)  # fmt: skip
_TIMEOUT_S = 120


def call(*words: str, script: str = "") -> str:
    """Run one of SLURM's commands; returns what it printed. Raises UserError when it fails."""
    try:
        ended = subprocess.run(
            words, input=script, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except FileNotFoundError as error:
        raise UserError(
            words[0], "no such command", expected="SLURM's client commands",
            fix="log in to a node of the cluster, or run here: `python -m stages.submit --local`",
        ) from error  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UserError(
            words[0], f"no answer in {_TIMEOUT_S} s", fix="look at `sinfo` and try again"
        ) from error
    if ended.returncode:
        said = ended.stderr.strip().removeprefix(f"{words[0]}: ").removeprefix("error: ")
        raise UserError(words[0], said or f"ended with {ended.returncode}")
    return ended.stdout


def sbatch_words(array: Array, config: SlurmConfig, submission: Submission) -> list[str]:
    """The call that sends an array, to begin later."""
    wanted = array.resources
    logs = str(submission.logs).replace("%", "%%")  # SLURM fills in what follows a %
    throttle = f"%{config.throttle}" if config.throttle else ""
    words = [
        "sbatch", "--parsable", "--begin=now+30days", "--kill-on-invalid-dep=yes", "--requeue",
        "--open-mode=append", f"--job-name={array.stage}",
        f"--array=0-{len(array.tasks) - 1}{throttle}",
        f"--chdir={submission.root}",
        f"--output={logs}/%A_%a.out", f"--error={logs}/%A_%a.err",
        "--nodes=1", "--ntasks=1", f"--cpus-per-task={wanted.cpus}", f"--mem={wanted.memory}",
        f"--time={wanted.time}",
    ]  # fmt: skip
    if config.warn_s:
        words.append(f"--signal=B:USR1@{config.warn_s}")
    if wanted.gpus:
        kind = f"{wanted.gpu_type}:" if wanted.gpu_type else ""
        words.append(f"--gres=gpu:{kind}{wanted.gpus}")
    return [*words, *where_words(wanted)]


def where_words(wanted: Resources) -> list[str]:
    """Options of sbatch that say where a job may run."""
    optional = {"partition": wanted.partition, "account": wanted.account}
    optional |= {"exclude": ",".join(wanted.exclude)}
    return [*(f"--{key}={value}" for key, value in optional.items() if value), *wanted.extra]


def most_tasks() -> int | None:
    """How many tasks the cluster lets an array have, if it says so."""
    found = re.search(r"^MaxArraySize\s*=\s*([1-9]\d*)", call("scontrol", "show", "config"), re.M)
    return int(found[1]) if found else None


def script(folder: Path, array: Array) -> str:
    """What an array runs: this Python, given where to find its tasks."""
    words = [sys.executable, "-m", "stages.job", str(folder), *(one.address for one in array.tasks)]
    return f"#!/bin/bash\nexec {shlex.join(words)}\n"


@dataclass(frozen=True)
class Dependency:
    """`needs` of a job that was sent: an array, or one task of it."""

    job: str
    needs: str


def dependencies(array: Array, job: str, jobs: Mapping[str, str]) -> list[Dependency]:
    """What each task of a sent array waits for; one for all where it is the same."""
    each = [afterok(task.needs, jobs) for task in array.tasks]
    if len(set(each)) == 1:
        return [Dependency(job, each[0])] if each[0] else []
    return [Dependency(f"{job}_{index}", needs) for index, needs in enumerate(each) if needs]


def afterok(needs: Iterable[str], jobs: Mapping[str, str]) -> str:
    """SLURM's words for tasks that must end well; a whole array is named once.

    >>> afterok(["a@x", "b@x"], {"a@x": "7_0", "a@y": "7_1", "b@x": "8_0"})
    'afterok:7_0:8'
    """
    sizes: dict[str, int] = {}
    for job in jobs.values():
        sizes[job.partition("_")[0]] = sizes.get(job.partition("_")[0], 0) + 1
    wanted: dict[str, list[str]] = {}
    for need in needs:
        wanted.setdefault(jobs[need].partition("_")[0], []).append(jobs[need])
    named = [
        one
        for job, tasks in wanted.items()
        for one in ([job] if len(tasks) == sizes[job] else tasks)
    ]
    return "afterok:" + ":".join(named) if named else ""


def send(submission: Submission, config: SlurmConfig) -> Submission:
    """Send a plan whole or not at all; returns it with the names of its jobs.

    Raises UserError with what SLURM said and which stage it was about.
    """
    submission.logs.mkdir(parents=True, exist_ok=True)  # without it jobs fail and leave no log
    sent: dict[str, Array] = {}
    stage = ""
    try:
        for array in submission.plan.arrays(config, most_tasks()):
            stage = array.stage
            words = sbatch_words(array, config, submission)
            said = call(*words, script=script(submission.folder, array))
            sent[said.strip().partition(";")[0]] = array
        jobs = {
            task.address: f"{job}_{index}"
            for job, array in sent.items()
            for index, task in enumerate(array.tasks)
        }
        for job, array in sent.items():
            stage = array.stage
            for one in dependencies(array, job, jobs):
                call("scontrol", "update", f"jobid={one.job}", f"dependency={one.needs}")
        submission = replace(submission, jobs=jobs)
        submission.save()
        for job in reversed(sent):  # what others wait for comes last
            call("scontrol", "update", f"jobid={job}", "starttime=now")
    except BaseException as error:
        if sent:
            subprocess.run(["scancel", *sent], capture_output=True, timeout=_TIMEOUT_S)
        if isinstance(error, UserError):
            raise UserError(
                f"{error.where}, stage {stage}", error.got, expected=error.expected,
                hint=f"nothing was sent; {len(sent)} arrays accepted before were cancelled",
                fix=error.fix or "see `slurm:` in params.yaml and what `sinfo` shows",
            ) from error  # fmt: skip
        raise
    return submission


def states(jobs: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """(state, node, reason) of jobs that the cluster still knows, in lower case."""
    wanted = set(jobs)
    lines = call("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%N|%r")
    rows = (line.split("|") for line in lines.splitlines())
    return {
        row[0]: (row[1].lower(), row[2], row[3]) for row in rows if row[0] in wanted
    }  # fmt: skip


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; what depends on them goes with them."""
    call("scancel", *jobs)


def own_job() -> str:
    """The name of the job that runs now; a task of an array is named in full.

    The last task of an array has the array's own number as its job number, which alone names
    all of its siblings too.
    """
    told = os.environ
    return f"{told.get(ARRAY, told[JOB])}_{told[TASK]}" if TASK in told else told[JOB]


def requeue(config: SlurmConfig) -> bool:
    """Put the job that runs now back into the queue; False when it may not go there again.

    A cancelled job stays cancelled.
    """
    job = own_job()
    if int(os.environ.get(RESTARTS, "0")) >= config.max_restarts:
        return False
    if "RUNNING" not in call("squeue", "--noheader", "--jobs", job, "--format=%T").split():
        return False
    call("scontrol", "requeue", job)
    return True
