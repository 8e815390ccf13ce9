"""Choice of the backend, and what a user without a GPU sees."""

import os
import subprocess
import sys

import pytest
import torch

from stages.run.errors import UserError
from stages.splat import raster


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")  # and put back
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu() -> None:
    assert raster.choose_backend("auto") == ("cpu", "torch sees no GPU")
    assert raster.choose_backend("cpu")[0] == "cpu"
    with pytest.raises(
        UserError, match=r"train\.backend: cuda, but torch .* sees no GPU"
    ) as caught:
        raster.choose_backend("cuda")
    assert "fix: set train.backend: cpu" in str(caught.value)


@pytest.mark.usefixtures("a_gpu")
def test_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "_load_kernels", lambda: object())
    assert raster.choose_backend("auto") == ("cuda", "torch sees a GPU, Some GPU")
    assert raster.choose_backend("cuda") == ("cuda", "train.backend is cuda, Some GPU")
    assert raster.choose_backend("cpu")[0] == "cpu"


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (None, "expandable_segments:True"),
        ("PYTORCH_ALLOC_CONF", "max_split_size_mb:64"),
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64"),
    ],
)
def test_memory_of_a_gpu_is_extended_in_place_unless_the_user_says_how(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, value: str
) -> None:
    monkeypatch.setattr(raster, "_load_kernels", lambda: object())
    monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    if variable is not None:
        monkeypatch.setenv(variable, value)
    raster.choose_backend("cuda")
    assert os.environ.get(variable or "PYTORCH_ALLOC_CONF") == value
    both = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ)
    assert both == {variable or "PYTORCH_ALLOC_CONF"}


@pytest.mark.skipif(
    not hasattr(torch._C, "_accelerator_getAllocatorSettings"),
    reason=f"torch {torch.__version__} does not tell its settings",
)
def test_torch_reads_how_to_take_memory_after_its_import() -> None:
    script = """
import os, torch
from stages.run.process.gpus import allow_expandable_segments
allow_expandable_segments()
print(torch._C._accelerator_getAllocatorSettings())
"""
    environment = {name: value for name, value in os.environ.items() if "ALLOC_CONF" not in name}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "expandable_segments:True"


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize("requested", ["auto", "cuda"])
def test_kernels_without_a_compiler(monkeypatch: pytest.MonkeyPatch, requested: str) -> None:
    monkeypatch.setattr(raster, "_load_kernels", lambda: None)
    with pytest.raises(UserError, match="nvcc") as caught:
        raster.choose_backend(requested)
    assert f"torch {torch.__version__}" in str(caught.value)


@pytest.mark.usefixtures("a_gpu")
def test_kernels_that_fail_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("Error building extension 'gsplat_cuda'")

    monkeypatch.setattr(raster, "_load_kernels", fail)
    with pytest.raises(UserError, match="RuntimeError: Error building extension"):
        raster.choose_backend("auto")


@pytest.mark.slow  # a second interpreter imports torch
def test_a_cpu_user_sees_no_word_of_cuda() -> None:
    code = (
        "import torch; torch.cuda.is_available = lambda: False\n"
        "from stages.splat import raster; raster.choose_backend('auto')\n"
        "from stages.splat.cpu.rasterize import rasterization"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
