"""The doctor's comparison of the GPU with the CPU: the parts that need no GPU."""

import pytest
import torch

from stages.run.errors import UserError
from stages.splat import smoke


def test_cloud_is_rendered_and_differentiated() -> None:
    image, gradient = smoke.render_cloud("torch")
    assert image.shape == (48, 64, 3)
    assert image.std() > 0.05
    assert (gradient.abs().sum(1) > 0).float().mean() > 0.5
    by_backend, its_gradient = smoke.render_cloud("cpu")
    assert (image - by_backend).abs().max() < 1e-5
    assert (gradient - its_gradient).abs().max() < 1e-4 * its_gradient.abs().max()


@pytest.mark.parametrize(("error", "passes"), [(1e-6, True), (0.01, False), (float("nan"), False)])
def test_difference_between_backends_is_judged(
    error: float, passes: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def render_cloud(backend: str) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(4, 4, 3) + error * (backend == "cuda"), torch.ones(5, 3)

    monkeypatch.setattr(smoke, "render_cloud", render_cloud)
    monkeypatch.setattr(smoke, "choose_backend", lambda _: ("cuda", "a GPU"))
    if passes:
        smoke.main()
        assert "image differs" in capsys.readouterr().out
    else:
        with pytest.raises(UserError, match="at most"):
            smoke.main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_an_error() -> None:
    with pytest.raises(UserError, match="sees no GPU"):
        smoke.main()
