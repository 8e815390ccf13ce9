"""The doctor's comparison of the GPU with the CPU, as far as a CPU can tell."""

import pytest
import torch

from stages.run.errors import UserError
from stages.splat import smoke


def test_scene_is_seen_and_differentiated() -> None:
    picture, gradient = smoke.drawn("cpu")
    assert picture.shape == (48, 64, 3)
    assert picture.std() > 0.05
    assert (gradient.abs().sum(1) > 0).float().mean() > 0.5


@pytest.mark.parametrize(("error", "passes"), [(1e-6, True), (0.01, False), (float("nan"), False)])
def test_difference_between_backends_is_judged(
    error: float, passes: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def drawn(backend: str) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(4, 4, 3) + error * (backend == "cuda"), torch.ones(5, 3)

    monkeypatch.setattr(smoke, "drawn", drawn)
    monkeypatch.setattr(smoke, "choose_backend", lambda _: ("cuda", "a GPU"))
    if passes:
        smoke.main()
        assert "picture differs" in capsys.readouterr().out
    else:
        with pytest.raises(UserError, match="at most"):
            smoke.main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_an_error() -> None:
    with pytest.raises(UserError, match="sees no GPU"):
        smoke.main()
