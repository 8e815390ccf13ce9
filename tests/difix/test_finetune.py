import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from tuning import no_weights, one_run, small_fixer, tune_config  # noqa: F401

from stages.difix.network.precision import choose_precision
from stages.difix.tuning.finetune import Tuner
from stages.difix.tuning.losses import FixerLoss, Terms
from stages.difix.tuning.validation import Sample, Validator
from stages.quality.metrics.batch import check_pair
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.files import WORK_ROOT_VARIABLE
from stages.run.process.stopping import PREEMPTED
from stages.samples.batches import Batch, seeded

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_run")


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORK_ROOT_VARIABLE, str(tmp_path / "work"))


class Noise:
    """Images with noise; micro-batch `poison` is NaN."""

    def __init__(self, batch_size: int = 2, poison: int = -1, limit: int = 10**9):
        self.batch_size, self.poison, self.limit = batch_size, poison, limit

    def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
        for micro in range(start, self.limit):
            first = (micro * processes + rank) * self.batch_size
            samples = [self.sample(first + one) for one in range(self.batch_size)]
            batch = Batch(*(torch.stack(one) for one in zip(*samples, strict=True)))
            yield batch._replace(image=batch.image * math.nan) if micro == self.poison else batch

    def sample(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = seeded("sample", number)
        target = torch.rand(3, 4, 4, generator=generator).repeat_interleave(8, 1)
        target = target.repeat_interleave(8, 2)
        noise = 0.1 * torch.randn(3, 32, 32, generator=generator)
        return (target + noise).clamp(0, 1), target, target.flip(-1)


def tuner(tmp_path: Path, device: torch.device = CPU, **values: Any) -> Tuner:
    spec = values.pop("spec", {})
    config = tune_config(**{"max_grad_norm": 1.0, "device": device.type} | values)
    loss = FixerLoss(config.losses, no_weights(tmp_path / "weights"), device)
    samples = [Sample(*Noise().sample(number)) for number in (10**6, 10**6 + 1)]
    validator = Validator(samples, None, device, (0,))
    kept = {"keep_best": config.keep == "best", "base_decay": config.base_decay}
    kept |= {"rank": config.rank}
    return Tuner(small_fixer(**spec), config, loss, validator, device, **kept)


def state(trained: Tuner) -> dict[str, Tensor]:
    return {key: one.detach().clone() for key, one in trained.parameters.items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("bound", [0.0, -1.0])
def test_a_bound_of_zero_means_no_clipping_and_zeroes_no_gradient(
    tmp_path: Path, bound: float
) -> None:
    """Handed to torch's clip_grad_norm_, 0 makes every gradient 0 and nothing learns."""
    trained, stream = tuner(tmp_path, max_grad_norm=bound), Noise().batches(0, 0, 1)
    trained._gradients(next(stream), 0, 0)
    before = [one.grad.clone() for one in trained.parameters.values() if one.grad is not None]
    norm = trained.stepper.clip()
    after = [one.grad for one in trained.parameters.values() if one.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert float(norm) > 0
    torch.nn.utils.clip_grad_norm_(list(trained.parameters.values()), 0.0)
    assert all(float(one.abs().max()) == 0 for one in after)  # which is avoided


def test_the_bound_reaches_the_gradients(tmp_path: Path) -> None:
    trained, stream = tuner(tmp_path, max_grad_norm=1e-3), Noise().batches(0, 0, 1)
    trained._gradients(next(stream), 0, 0)
    assert float(trained.stepper.clip()) > 1e-2
    gradients = [one.grad for one in trained.parameters.values() if one.grad is not None]
    assert float(torch.nn.utils.get_total_norm(gradients)) == pytest.approx(1e-3, rel=1e-3)


def test_a_run_learns_and_records_its_measures(tmp_path: Path) -> None:
    trained = tuner(tmp_path, steps=40, batch_size=4, lr=3e-3, validate_every=20, max_grad_norm=0.0)
    trained.run(Noise(4), Checkpoint("tune", "a"))
    rows = {row["row"]: row for row in trained.validations}
    assert rows["untuned"]["psnr"] == rows["identity"]["psnr"]
    assert rows["tuned"]["psnr"] > rows["untuned"]["psnr"] + 0.3
    assert rows.keys() >= {
        f"{fixer}_{references}"
        for fixer in ("untuned", "tuned")
        for references in ("withheld", "wrong")
    }
    assert [row["step"] for row in trained.curve] == list(range(1, 41))
    assert trained.curve[-1]["loss"] < trained.curve[0]["loss"]
    assert trained.weights_moved > 0


def test_every_step_and_point_of_the_curve_has_the_rate_of_the_schedule(tmp_path: Path) -> None:
    values = {"steps": 4, "warmup_steps": 2, "lr": 1e-3, "lr_schedule": "cosine"}
    trained, rates = tuner(tmp_path, **values), []
    learn = trained.stepper.learn
    trained.stepper.learn = lambda lr: rates.append(lr) or learn(lr)  # type: ignore[method-assign]
    trained.run(Noise(), Checkpoint("tune", "rates"))
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])
    assert [row["lr"] for row in trained.curve] == pytest.approx(rates)


def test_a_step_moves_the_weights_at_its_own_rate(tmp_path: Path) -> None:
    """Adam's first step is as long as the rate wherever there is a gradient."""
    trained = tuner(tmp_path, steps=9, warmup_steps=4, lr=1e-3, weight_decay=0.0)
    before = state(trained)
    trained.step(1, Noise().batches(0, 0, 1))
    moved = max(float((one - before[key]).abs().max()) for key, one in trained.parameters.items())
    assert moved == pytest.approx(5e-4, rel=1e-2)


def stopped_and_resumed(tmp_path: Path, **values: object) -> tuple[Tuner, Tuner]:
    """A whole run, and one that was stopped and went on; their curves are the same."""
    values = {"steps": 7, "ema_decay": 0.5, "accumulation": 2, "warmup_steps": 3} | values
    whole = tuner(tmp_path, **values)
    whole.run(Noise(), Checkpoint("tune", "whole"))
    torn = tuner(tmp_path, **values)
    with pytest.raises(StopIteration):
        torn.run(Noise(limit=10), Checkpoint("tune", "torn"))
    again = tuner(tmp_path, **values)
    again.run(Noise(), Checkpoint("tune", "torn"))
    assert whole.curve == again.curve
    assert whole.validations == again.validations
    return whole, again


def test_a_stopped_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    whole, again = stopped_and_resumed(tmp_path)
    assert equal(state(whole), state(again))


def test_the_last_state_has_no_moments_and_ends_as_the_run_did(tmp_path: Path) -> None:
    """It is read where a run was killed between its last step and its result."""
    values = {"steps": 4, "ema_decay": 0.5, "checkpoint_every": 2}
    whole, checkpoint = tuner(tmp_path, **values), Checkpoint("tune", "ended")
    whole.run(Noise(), checkpoint)
    saved = checkpoint.load()
    assert saved is not None
    assert saved["step"] == 4
    assert saved.keys().isdisjoint(whole.stepper.state())
    again = tuner(tmp_path, **values)
    again.run(Noise(limit=0), checkpoint)
    assert equal(state(whole), state(again))
    assert whole.validations == again.validations


def test_states_that_take_too_long_are_written_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(Checkpoint, "save", lambda _, state, **__: steps.append(state["step"]))
    asked = iter([True, False, False, True, False])
    monkeypatch.setattr(Checkpoint, "affordable", lambda _: next(asked))
    tuner(tmp_path, steps=5, checkpoint_every=1).run(Noise(), Checkpoint("tune", "costly"))
    assert steps == [1, 4, 5], "the last one is always written"


def test_a_state_of_the_other_execution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StopIteration):
        tuner(tmp_path, steps=7).run(Noise(limit=3), Checkpoint("tune", "other"))
    again = tuner(tmp_path, steps=7)
    again.execution = "graph"
    with pytest.raises(UserError, match="state of a run by eager, not graph"):
        again.run(Noise(), Checkpoint("tune", "other"))


def test_a_signal_saves_the_state_and_ends_with_its_exit_code(tmp_path: Path) -> None:
    import os
    import signal

    class Signalling(Noise):
        def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
            for number, batch in enumerate(super().batches(start, rank, processes)):
                if number == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    before = signal.getsignal(signal.SIGTERM)
    checkpoint = Checkpoint("tune", "signal")
    with pytest.raises(SystemExit) as ended:
        tuner(tmp_path, checkpoint_every=100).run(Signalling(), checkpoint)
    assert ended.value.code == PREEMPTED
    saved = checkpoint.load()
    assert saved is not None
    assert saved["step"] == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "affordable", lambda _: True)  # also on a busy machine
    checkpoint = Checkpoint("tune", "nan")
    with pytest.raises(UserError, match="the loss is not finite") as raised:
        tuner(tmp_path, steps=9).run(Noise(poison=4), checkpoint)
    assert str(checkpoint.path) in str(raised.value)
    saved = checkpoint.load()
    assert saved is not None
    assert saved["step"] == 4
    assert all(one.isfinite().all() for one in saved["parameters"].values())


def test_a_gradient_that_is_not_finite_is_noticed_before_saving(tmp_path: Path) -> None:
    """The loss of that step is still finite, the weights no longer are."""
    checkpoint = Checkpoint("tune", "gradient")
    trained = tuner(tmp_path, steps=9)
    loss = trained.loss

    def poisoned(output: Tensor, target: Tensor, step: int) -> Terms:
        terms = loss(output, target, step)
        if step == 3:
            output.register_hook(lambda gradient: gradient * math.nan)
        return terms

    poisoned.config = loss.config  # type: ignore[attr-defined]
    trained.loss = poisoned  # type: ignore[assignment]
    with pytest.raises(UserError, match="the gradient is not finite at step 4"):
        trained.run(Noise(), checkpoint)
    saved = checkpoint.load()
    assert saved is not None
    assert saved["step"] == 2


def test_an_image_that_is_not_finite_is_reported_like_a_loss(tmp_path: Path) -> None:
    """LPIPS refuses such images before the loss is checked."""
    checkpoint = Checkpoint("tune", "image")
    trained = tuner(tmp_path, steps=9)
    loss = trained.loss

    def perceptual(output: Tensor, target: Tensor, step: int) -> Terms:
        image = output.detach().clamp(-1, 1) / 2 + 0.5
        image = image * math.nan if step == 3 else image
        check_pair(image, image)
        return loss(output, target, step)

    perceptual.config = trained.loss.config  # type: ignore[attr-defined]
    trained.loss = perceptual  # type: ignore[assignment]
    with pytest.raises(UserError, match="an image is not finite at step 4") as raised:
        trained.run(Noise(), checkpoint)
    assert "fix: lower lr" in str(raised.value)


def test_accumulation_is_a_larger_batch(tmp_path: Path) -> None:
    values = {"steps": 3, "reference_dropout": 0.0}
    large = tuner(tmp_path, batch_size=4, **values)
    large.run(Noise(4), Checkpoint("tune", "large"))
    small = tuner(tmp_path, batch_size=2, accumulation=2, **values)
    small.run(Noise(2), Checkpoint("tune", "small"))
    for wanted, row in zip(large.curve, small.curve, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-4)


def test_bf16_moves_float32_weights_at_the_rate_of_fine_tuning(tmp_path: Path) -> None:
    """Weights that are bf16 themselves hardly move: a step is far below their resolution."""
    trained = tuner(tmp_path, precision="bf16", lr=2e-5, steps=5, validate_every=99)
    start = state(trained)
    trained.run(Noise(), Checkpoint("tune", "bf16"))
    assert all(one.dtype == torch.float32 for one in trained.parameters.values())
    name = "unet.mid_block.resnets.0.conv1.weight"
    weight = trained.parameters[name]
    assert float((weight != start[name]).float().mean()) > 0.95
    rounded = start[name].bfloat16() != weight.detach().bfloat16()
    assert float(rounded.float().mean()) < 0.5  # what bf16 weights would have kept of it


def test_the_forward_pass_of_bf16_is_under_autocast(tmp_path: Path) -> None:
    dtypes: list[torch.dtype] = []
    trained = tuner(tmp_path, precision="bf16")
    trained.fixer.unet.conv_in.register_forward_hook(lambda *hooked: dtypes.append(hooked[2].dtype))
    trained._gradients(next(Noise().batches(0, 0, 1)), 0, 0)
    assert dtypes == [torch.bfloat16]


def test_fp16_is_refused_on_a_cpu_and_used_where_bf16_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match="fp16 on a CPU"):
        choose_precision("fp16", CPU, "tune.precision")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert choose_precision("auto", torch.device("cuda"), "tune.precision")[0] == "fp16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert choose_precision("auto", torch.device("cuda"), "tune.precision")[0] == "bf16"
    assert choose_precision("auto", CPU, "tune.precision")[0] == "fp32"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains_float32_weights_on_a_gpu(tmp_path: Path, precision: str) -> None:
    """Weights that are fp16 end in `Attempting to unscale FP16 gradients`."""
    device = torch.device("cuda")
    trained = tuner(tmp_path, device, precision=precision, lr=2e-5, steps=5)
    assert trained.stepper.may_overflow == (precision == "fp16")
    trained.run(Noise(), Checkpoint("tune", precision))
    assert all(one.dtype == torch.float32 for one in trained.parameters.values())
    assert trained.weights_moved > 0


def test_the_best_weights_are_kept_if_so_set(tmp_path: Path) -> None:
    """A rate that ruins the fixer late leaves its earlier, better state."""
    values = {"steps": 12, "validate_every": 3, "batch_size": 4, "lr": 3e-3}
    trained = tuner(tmp_path, keep="best", **values)
    step = trained._learning_rate
    trained._learning_rate = lambda at: step(at) if at < 6 else 0.05  # type: ignore[method-assign]
    trained.run(Noise(4), Checkpoint("tune", "best"))
    rows = [row for row in trained.validations if row["row"] == "fixed"]
    best = max(rows, key=lambda row: row["psnr"])
    tuned = next(row for row in trained.validations if row["row"] == "tuned")
    assert tuned["step"] == best["step"] < 12
    assert tuned["psnr"] == pytest.approx(best["psnr"], abs=1e-4)


def test_base_decay_pulls_the_weights_back_by_its_share(tmp_path: Path) -> None:
    """A step with it ends between the initial weights and where it would end without."""
    free = tuner(tmp_path, lr=1e-3, warmup_steps=0)
    pulled = tuner(tmp_path, lr=1e-3, warmup_steps=0, base_decay=250.0)
    before = state(free)
    for one in (free, pulled):
        one.step(0, Noise().batches(0, 0, 1))
    for key, start in before.items():
        wanted = start + 0.75 * (free.parameters[key] - start)
        torch.testing.assert_close(pulled.parameters[key], wanted, rtol=1e-4, atol=1e-7)
    assert pulled.weights_moved == pytest.approx(0.75 * free.weights_moved, rel=1e-3)


def matrix_rank(change: Tensor) -> int:
    """Singular values that are more than rounding errors of the weights."""
    values = torch.linalg.svdvals(change.flatten(1).double())
    return int((values > 1e-3 * values[0]).sum())


@pytest.mark.parametrize("spec", [{}, {"lora_rank": 2, "residual": False}])
def test_with_a_rank_changes_have_at_most_that_rank(tmp_path: Path, spec: dict[str, Any]) -> None:
    plain = small_fixer(**spec)
    before = {key: one.detach().clone() for key, one in plain.state_dict().items()}
    values = {"lr": 1e-2, "ema_decay": 0.5, "spec": spec, "base_decay": 0.1}
    trained = tuner(tmp_path, rank=3, **values)
    with_lora = {id(layer) for layer in trained.fixer._lora_layers().values()} if spec else set()
    names = {key for key, one in trained.fixer.named_parameters() if id(one) in with_lora}
    fixer = trained.run(Noise(), Checkpoint("tune", "rank"))
    after = fixer.state_dict()
    assert list(after) == list(before)
    assert {type(one) for one in fixer.modules()} == {type(one) for one in plain.modules()}
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    matrices = {key for key, one in before.items() if one.ndim > 1 and key != "prompt"}
    assert moved == set(trained.parameters) == matrices - names
    ranks = {
        key: matrix_rank(after[key] - before[key]) for key in moved if not key.startswith("lora.")
    }
    assert set(ranks.values()) <= {1, 2, 3}
    assert 3 in ranks.values()
    change = sum(float((after[key] - before[key]).square().sum()) for key in moved)
    norm = sum(float(before[key].square().sum()) for key in moved)
    assert trained.weights_moved == pytest.approx(math.sqrt(change / norm), rel=1e-4)
    free = tuner(tmp_path, **values)
    free.run(Noise(), Checkpoint("tune", "free"))
    change = free.parameters["unet.conv_in.weight"] - before["unet.conv_in.weight"]
    assert matrix_rank(change) > 3


def test_with_a_rank_a_run_learns_and_keeps_its_best_weights(tmp_path: Path) -> None:
    values = {"steps": 40, "batch_size": 4, "lr": 3e-3, "validate_every": 20, "keep": "best"}
    trained = tuner(tmp_path, rank=4, max_grad_norm=0.0, **values)
    assert sum(one.numel() for one in trained.parameters.values()) < 2e5 / 3
    trained.run(Noise(4), Checkpoint("tune", "low"))
    rows = {row["row"]: row for row in trained.validations}
    assert rows["tuned"]["psnr"] > rows["untuned"]["psnr"] + 0.2
    best = max(row["psnr"] for row in trained.validations if row["row"] == "fixed")
    assert rows["tuned"]["psnr"] == pytest.approx(best, abs=1e-4)


def test_with_a_rank_a_stopped_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    whole, again = stopped_and_resumed(tmp_path, rank=2)
    assert equal(whole.fixer.state_dict(), again.fixer.state_dict())


def test_with_a_rank_checkpointed_activations_change_no_step(tmp_path: Path) -> None:
    ends = []
    for checkpointing in ("none", "all"):
        one = tuner(tmp_path, rank=2, gradient_checkpointing=checkpointing)
        one.step(0, Noise().batches(0, 0, 1))
        ends.append(state(one))
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-4, atol=1e-6)


def test_with_a_rank_steps_are_eager_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tuner(tmp_path, rank=2).execution == "eager"
    assert "eager (tune.rank is 2), 1 process\n" in capsys.readouterr().out
    with pytest.raises(ValidationError, match="rank 2 needs execution auto or eager"):
        tune_config(rank=2, execution="graph")


def test_the_ema_is_validated_and_kept(tmp_path: Path) -> None:
    trained = tuner(tmp_path, ema_decay=0.9, steps=4)
    averages = trained.ema.averages
    trained.run(Noise(), Checkpoint("tune", "ema"))
    assert all(
        torch.equal(one, two)
        for one, two in zip(averages, trained.parameters.values(), strict=True)
    )


def test_a_run_that_changes_nothing_is_an_error(tmp_path: Path) -> None:
    trained = tuner(tmp_path, lr=1e-30, weight_decay=0.0, steps=1)
    with pytest.raises(UserError, match="no weight has changed"):
        trained.run(Noise(), Checkpoint("tune", "still"))


def test_references_are_dropped_at_the_set_rate(tmp_path: Path) -> None:
    trained = tuner(tmp_path, reference_dropout=0.5, accumulation=2)
    views: list[int] = []
    trained.fixer.unet.conv_in.register_forward_hook(
        lambda *hooked: views.append(len(hooked[2]) // 2)
    )
    stream = Noise().batches(0, 0, 1)
    for number in range(20):
        with torch.no_grad():
            batch = next(stream)
            drop = torch.rand((), generator=seeded(0, "reference dropout", number))
        trained._gradients(batch, *divmod(number, 2))
        assert views[-1] == (2 if float(drop) >= 0.5 else 1)
    assert {1, 2} == set(views)


@pytest.mark.parametrize("part", ["decoder", "all"])
def test_checkpointing_gives_the_same_gradients(tmp_path: Path, part: str) -> None:
    batch = next(Noise().batches(0, 0, 1))
    plain, spared = tuner(tmp_path), tuner(tmp_path, gradient_checkpointing=part)
    assert spared.fixer.unet.is_gradient_checkpointing == (part == "all")
    for trained in (plain, spared):
        trained._gradients(batch, 0, 0)
    for key, one in plain.parameters.items():
        if one.grad is not None:
            torch.testing.assert_close(one.grad, spared.parameters[key].grad)


def test_the_published_parameters_exclude_the_vae(tmp_path: Path) -> None:
    trained = tuner(tmp_path, trained="published", spec={"lora_rank": 2, "residual": False})
    vae = {key: one.clone() for key, one in trained.fixer.vae.state_dict().items()}
    assert {key.split(".")[0] for key in trained.parameters} == {"unet", "skips", "lora"}
    before = {key: one.detach().clone() for key, one in trained.parameters.items()}
    trained.step(0, Noise().batches(0, 0, 1))
    assert equal(vae, dict(trained.fixer.vae.state_dict()))
    assert not equal(before, dict(trained.parameters))
