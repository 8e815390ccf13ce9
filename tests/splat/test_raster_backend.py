"""Choice of the backend, and what a user without a GPU sees."""

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
