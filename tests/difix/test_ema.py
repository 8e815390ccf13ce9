import torch

from stages.difix.tuning.ema import Ema


def test_averages_follow_their_closed_form() -> None:
    weight = torch.zeros(3)
    ema = Ema([weight], 0.9)
    wanted = 0.0
    for step in range(200):
        weight.fill_(step + 1.0)
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * (step + 1)
        torch.testing.assert_close(ema.averages[0], torch.full((3,), wanted))


def test_averages_replace_the_weights_within_a_block_only() -> None:
    weight = torch.ones(2)
    ema = Ema([weight], 0.5)
    weight.fill_(3.0)
    ema.update(0)
    with ema.applied():
        assert float(weight[0]) == float(ema.averages[0][0]) != 3.0
    assert float(weight[0]) == 3.0
    ema.keep()
    assert torch.equal(weight, ema.averages[0])


def test_weights_are_restored_after_an_error() -> None:
    weight = torch.ones(2)
    ema = Ema([weight], 0.5)
    weight.fill_(3.0)
    try:
        with ema.applied():
            raise KeyError
    except KeyError:
        pass
    assert float(weight[0]) == 3.0


def test_without_decay_nothing_is_stored() -> None:
    weight = torch.ones(2)
    ema = Ema([weight], 0.0)
    ema.update(0)
    with ema.applied():
        weight.fill_(2.0)
    ema.keep()
    assert ema.averages == []
    assert float(weight[0]) == 2.0
