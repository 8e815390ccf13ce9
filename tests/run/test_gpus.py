"""Which GPUs a process may use, by CUDA_VISIBLE_DEVICES."""

import os

import pytest

from stages.run.errors import UserError
from stages.run.process.gpus import expect_gpu, gpu_environment, named_gpus, use_gpus


@pytest.mark.parametrize(
    ("value", "names"),
    [(None, None), ("", []), ("-1", []), ("3", ["3"]), (" 2, GPU-ab12,", ["2", "GPU-ab12"])],
)
def test_gpus_are_those_that_the_variable_names(
    monkeypatch: pytest.MonkeyPatch, value: str | None, names: list[str] | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert named_gpus() == names


def test_gpus_that_are_set_are_those_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    use_gpus(["1", "GPU-ab12"])
    assert named_gpus() == ["1", "GPU-ab12"]
    assert gpu_environment([]) == {"CUDA_VISIBLE_DEVICES": ""}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,GPU-ab12"


GIVEN = {"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "2", "CUDA_VISIBLE_DEVICES": "0"}


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        (GIVEN, "SLURM_JOB_GPUS=2"),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}, "SLURM_GPUS_ON_NODE=4"),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1"}, "CUDA_VISIBLE_DEVICES=0,1"),
        ({}, ""),
        ({"CUDA_VISIBLE_DEVICES": "0"}, ""),
        ({"SLURM_JOB_ID": "7"}, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "0"}, ""),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ""),
        (GIVEN | {"CUDA_VISIBLE_DEVICES": ""}, ""),
    ],
)
def test_job_that_was_given_a_gpu_does_not_work_without_one(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], shown: str
) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "CUDA_"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not shown:
        expect_gpu("train.backend")
        return
    with pytest.raises(UserError) as refused:
        expect_gpu("train.backend")
    assert f"train.backend: auto, and this job was given a GPU ({shown})" in str(refused.value)
    assert "set train.backend: cpu" in refused.value.fix
