"""Which GPUs a process may use, by CUDA_VISIBLE_DEVICES."""

import os

import pytest

from stages.run.process.gpus import gpu_environment, named_gpus, use_gpus


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
