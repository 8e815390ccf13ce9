import pytest
import torch
from fixers import perturbed, published_spec, random_images
from torch import Tensor

from stages.difix.gpu.replays import Replays


def test_a_shape_that_occurs_once_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    calls: list[int] = []

    def fixer(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images[:, 0]

    replays = Replays(fixer)  # type: ignore[arg-type]
    recorded: list[int] = []

    def record(images: Tensor) -> None:
        recorded.append(len(images))
        raise StopIteration

    monkeypatch.setattr(replays, "_record", record)
    assert torch.equal(replays(torch.ones(4, 1, 3, 2, 2)), torch.ones(4, 3, 2, 2))
    replays(torch.ones(2, 1, 3, 2, 2))
    with pytest.raises(StopIteration):
        replays(torch.ones(4, 1, 3, 2, 2))
    assert calls == [4, 2]
    assert recorded == [4]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_replay_equals_a_call_of_the_fixer() -> None:
    fixer = perturbed(published_spec()).cuda()
    replays = Replays(fixer)
    with torch.inference_mode():
        for seed in range(4):
            images = random_images(1, 2, 3, 32, 48, seed=seed).cuda()
            torch.testing.assert_close(replays(images), fixer(images), atol=1e-4, rtol=1e-4)
    assert len(replays._graphs) == 1
