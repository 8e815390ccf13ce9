"""What is handed to SLURM, word by word."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_plan import config

from stages.jobs.plan import JobPlan
from stages.jobs.slurm import Dependency, afterok, dependencies, sbatch_words, script
from stages.jobs.submission import Submission
from stages.run.errors import UserError

PLAN = JobPlan.of(
    {
        "make@a": [],
        "make@b": [],
        "use@a": ["make@a"],
        "use@b": ["make@b"],
        "all": ["use@a", "use@b"],
    }
)
JOBS = {"make@a": "1_0", "make@b": "1_1", "use@a": "2_0", "use@b": "2_1", "all": "3_0"}
HERE = Submission(Path("/w/.work/jobs/1"), Path("/w"), Path("/w/slurm_logs"), "slurm", PLAN, {})


def test_words_say_all_that_the_params_say() -> None:
    told = config(
        make={
            "gpus": 2,
            "gpu_type": "h100",
            "partition": "gpu",
            "account": "lab",
            "extra": ["--qos=low"],
        }
    )
    told = told.model_copy(update={"throttle": 4})
    words = sbatch_words(PLAN.arrays(told)[0], told, HERE)
    assert words[0] == "sbatch"
    wanted = {
        "--begin=now+30days",
        "--kill-on-invalid-dep=yes",
        "--requeue",
        "--open-mode=append",
        "--array=0-1%4",
        "--gres=gpu:h100:2",
        "--mem=32G",
        "--cpus-per-task=2",
        "--time=12:00:00",
        "--partition=gpu",
        "--account=lab",
        "--exclude=bad1",
        "--qos=low",
        "--signal=B:USR1@300",
        "--output=/w/slurm_logs/%A_%a.out",
        "--error=/w/slurm_logs/%A_%a.err",
        "--chdir=/w",
    }
    assert wanted <= set(words)
    plain = sbatch_words(PLAN.arrays(config())[0], config(), HERE)
    assert not [word for word in plain if word.startswith(("--gres", "--partition", "--account"))]
    assert "--array=0-1" in plain
    odd = sbatch_words(PLAN.arrays(config())[0], config(), replace(HERE, logs=Path("/%j/logs")))
    assert "--output=/%%j/logs/%A_%a.out" in odd


def test_script_holds_names_as_words_of_their_own() -> None:
    strange = JobPlan.of({"make@a; touch b": []}).arrays(config())[0]
    assert script(HERE.folder, strange).splitlines()[1].endswith("/1 'make@a; touch b'")


def test_tasks_of_one_job_are_a_word_of_several_lines() -> None:
    plan = JobPlan.of({"make@a; b": [], "use@a": ["make@a; b"]})
    text = script(HERE.folder, plan.arrays(config({"g": ["make", "use"]}))[0]).replace(
        sys.executable, "printf '[%s]'"
    )
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("/1][make@a; b\nuse@a]")


@pytest.mark.parametrize(
    "fault",
    [
        {"partition": "a b"},
        {"extra": ["; ls"]},
        {"memory": "32"},
        {"time": "12h"},
        {"gpu_type": "a40 --wrap"},
        {"exclude": ["$HOME"]},
        {"gpuz": 1},
    ],
)
def test_words_that_could_be_more_than_a_value_are_refused(fault: dict) -> None:
    with pytest.raises(UserError, match=r"slurm\.stages\.make"):
        config(make=fault)


def test_each_task_waits_for_its_own_needs() -> None:
    make, use, last = PLAN.arrays(config())
    assert dependencies(make, "1", JOBS) == []
    assert dependencies(use, "2", JOBS) == [
        Dependency("2_0", "afterok:1_0"),
        Dependency("2_1", "afterok:1_1"),
    ]
    assert dependencies(last, "3", JOBS) == [Dependency("3", "afterok:2")]


def test_part_of_an_array_is_named_task_by_task() -> None:
    jobs = {**JOBS, "use@c": "2_2"}
    assert afterok(["use@a", "use@b"], jobs, {"2": 3}) == "afterok:2_0:2_1"
    assert afterok(["use@a", "use@b", "use@c"], jobs, {"2": 3}) == "afterok:2"
