"""Rows of views and means of scenes, with LPIPS and without its weights."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from stages.quality.config import EvaluateConfig, LpipsConfig, Net
from stages.quality.crops import Box
from stages.quality.evaluation import (
    COLUMNS,
    HIGHEST_PSNR_DB,
    MeasuredView,
    Meter,
    columns_of,
    evaluate,
    mean_color,
)
from stages.quality.keys import AVERAGED, CROPPED, MASKED, MEASURES
from stages.quality.metrics.lpips import LPIPS_PX, Lpips
from stages.quality.metrics.psnr import psnr
from stages.quality.metrics.ssim import ssim
from stages.run.errors import UserError
from stages.run.files import read_json, write_json

GREY = np.full(3, 0.5)


@pytest.fixture
def no_weights(tmp_path: Path) -> Path:
    absent = {"found": False, "from": None, "sha256": None, "reason": "no network"}
    write_json(tmp_path / "weights.json", {"alex": absent})
    return tmp_path


@pytest.fixture
def view_of(images: Callable[..., Tensor]) -> Callable[..., MeasuredView]:
    """`view_of(camera, seed, **changes)`: a view whose render is another random image."""

    def build(camera: str = "28", seed: int = 0, **changes: object) -> MeasuredView:
        truth, render = images(2, 40, 48, seed).permute(0, 2, 3, 1).numpy()
        fields = {"truth": truth, "truth_sha256": f"{seed}", "given": render}
        return MeasuredView("000021", camera, **(fields | changes))

    return build


def batch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_row_holds_the_measures_of_its_images(view_of: Callable) -> None:
    view = view_of(aligned=view_of(seed=5).truth)
    row = Meter("cpu").measure(view)
    truth, render, aligned = map(batch, (view.truth, view.given, view.aligned))
    assert list(row) == COLUMNS
    assert row["psnr"] == pytest.approx(float(psnr(render, truth)), abs=1e-6)
    assert row["ssim"] == pytest.approx(float(ssim(render, truth)), abs=1e-6)
    assert row["psnr_aligned"] == pytest.approx(float(psnr(aligned, truth)), abs=1e-6)
    assert row["lpips"] is row["lpips_aligned"] is row["mpsnr"] is None


def test_masked_measures_need_pixels_in_the_mask(view_of: Callable) -> None:
    mask = np.zeros((40, 48), bool)
    assert Meter("cpu").measure(view_of(mask=mask))["mpsnr"] is None
    mask[:, :24] = True
    view = view_of(mask=mask)
    row = Meter("cpu").measure(view)
    left = psnr(batch(view.truth)[..., :24], batch(view.given)[..., :24])
    assert row["mpsnr"] == pytest.approx(float(left), abs=1e-6)
    assert 0 < row["mssim"] < 1
    assert row["mlpips"] is None


def test_invalid_pixels_count_in_no_measure(view_of: Callable) -> None:
    """Rubbish there changes nothing, and what is there counts in full."""
    view = view_of(aligned=view_of(seed=5).truth)
    valid = np.zeros((40, 48), bool)
    valid[:, :30] = True
    view = replace(view, valid=valid)
    row = Meter("cpu").measure(view)
    error = np.square(view.given - view.truth)[:, :30].mean()
    assert row["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-5)
    error = np.square(view.aligned - view.truth)[:, :30].mean()
    assert row["psnr_aligned"] == pytest.approx(-10 * np.log10(error), abs=1e-5)
    spoilt = np.where(valid[..., None], view.given, 1 - view.given)
    assert Meter("cpu").measure(replace(view, given=spoilt)) == row
    left = replace(view, truth=view.truth[:, :30], given=view.given[:, :30], aligned=None)
    alone = Meter("cpu").measure(replace(left, valid=None))
    assert row["ssim"] == pytest.approx(alone["ssim"], abs=0.05)
    _, means = evaluate([view], Meter("cpu"), GREY, "lens", name="one")
    flat = np.square(view.truth[:, :30] - GREY).mean()
    assert means["mean_color_psnr"] == pytest.approx(-10 * np.log10(flat), abs=1e-5)


def test_lpips_is_of_the_valid_share(view_of: Callable, random_backbone: Callable) -> None:
    valid = np.zeros((64, 64), bool)
    valid[:, :16] = True
    fields = view_of(seed=1), view_of(seed=2)
    truth, given = (np.resize(view.truth, (64, 64, 3)) for view in fields)
    given = np.where(valid[..., None], given, truth)
    view = view_of(truth=truth, given=given, aligned=given)
    meter = Meter("cpu", Lpips(random_backbone("alex"), "alex"))
    whole, quarter = meter.measure(view), meter.measure(replace(view, valid=valid))
    for name in ("lpips", "lpips_aligned"):
        assert quarter[name] == pytest.approx(4 * whole[name], rel=1e-4)
        assert quarter[name] > 0


def test_equal_images_have_a_finite_psnr(view_of: Callable) -> None:
    view = view_of()
    row = Meter("cpu").measure(view_of(given=view.truth))
    assert row["psnr"] == HIGHEST_PSNR_DB
    json.dumps(row, allow_nan=False)


def test_scene_has_the_means_of_its_views_and_the_same_keys_always(view_of: Callable) -> None:
    views = [view_of("28", 1), view_of("64", 2)]
    rows, means = evaluate(views, Meter("cpu", note="no network"), GREY, "ignore", name="one")
    assert list(means) == [*AVERAGED, "views", "protocol", "lpips_note"]
    assert means["psnr"] == pytest.approx((rows[0]["psnr"] + rows[1]["psnr"]) / 2, abs=1e-6)
    assert means["views"] == 2
    assert means["lpips"] is None
    assert means["lpips_note"] == "no network"
    assert all(means[key] is None for key in MASKED)
    flat = [-10 * math.log10(float(np.square(one.truth - 0.5).mean())) for one in views]
    assert means["mean_color_psnr"] == pytest.approx(sum(flat) / 2, abs=1e-5)


def test_result_below_the_mean_colour_is_warned_of(
    view_of: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    view = view_of(0)
    near = replace(view, given=0.9 * view.truth + 0.05)
    evaluate([near], Meter("cpu"), GREY, "lens", name="good")
    assert caplog.messages == []
    inverted = replace(view, given=1 - view.truth)
    _, means = evaluate([inverted], Meter("cpu"), GREY, "lens", name="room by none")
    assert caplog.messages == [
        f"room by none: PSNR {means['psnr']:.2f} dB is below that of an image of the mean colour, "
        f"{means['mean_color_psnr']:.2f} dB: the poses may be wrong or of another frame"
    ]


def test_protocol_changes_with_what_numbers_depend_on(view_of: Callable) -> None:
    def protocol(views: list[MeasuredView], meter: Meter, masks: str = "ignore") -> str:
        return evaluate(views, meter, GREY, masks, name="one")[1]["protocol"]

    both, meter = [view_of("28", 1), view_of("64", 2)], Meter("cpu")
    base = protocol(both, meter)
    assert base == protocol(both[::-1], meter)
    assert base == protocol([view_of("28", 1, given=both[1].given), both[1]], meter)
    others = [
        protocol(both[:1], meter),
        protocol([view_of("28", 1), view_of("88", 2)], meter),
        protocol([view_of("28", 1), view_of("64", 3)], meter),
        protocol(both, Meter("cpu", lpips_name="alex 0badf00d")),
        protocol(both, meter, "people"),
        protocol(both, Meter("cpu", ssim="dycheck")),
    ]
    assert len({base, *others}) == 7
    assert others[-1] == f"{base}, ssim dycheck"
    assert base.startswith("48x40, 2 views ")


def test_form_of_ssim_changes_nothing_else(view_of: Callable, no_weights: Path) -> None:
    view = view_of(seed=1)
    view = replace(view, aligned=view.given, mask=np.ones(view.truth.shape[:2], bool))
    config = EvaluateConfig(device="cpu", ssim="dycheck")
    plain, inside = (
        Meter.build(one, no_weights).measure(view) for one in (EvaluateConfig(), config)
    )
    changed = {key for key in plain if plain[key] != inside[key]}
    assert changed == {"ssim", "ssim_aligned"}
    # Under a full mask DyCheck's masked SSIM is its plain one.
    assert inside["ssim"] == pytest.approx(inside["mssim"], abs=2e-6)
    with pytest.raises(UserError, match="less than 11 px"):
        Meter("cpu", ssim="dycheck").require_sizes({"small": (10, 40)}, "shrink less")


def test_mean_color_weighs_pixels() -> None:
    large, small = np.zeros((4, 4, 3), np.float32), np.ones((2, 4, 3), np.float32)
    assert mean_color([large, small]).tolist() == pytest.approx([1 / 3] * 3)


def test_missing_weights_are_noted_or_refused(no_weights: Path) -> None:
    meter = Meter.build(EvaluateConfig(device="cpu"), no_weights)
    assert meter.lpips is None
    assert meter.note == "no weights of alex: no network"
    required = EvaluateConfig(device="cpu", lpips=LpipsConfig(required=True))
    with pytest.raises(UserError, match="no weights of alex: no network") as error:
        Meter.build(required, no_weights)
    assert "alexnet-owt-7be5be79.pth" in error.value.fix


def test_views_too_small_for_a_measure_are_refused(random_backbone: Callable) -> None:
    sizes = {"wide": (64, 64), "small": (10, 40)}
    Meter("cpu").require_sizes(sizes, "shrink less")
    with pytest.raises(UserError, match=r"small: 10x40 px, and 0 more views of less than 11 px"):
        Meter("cpu").require_sizes(sizes, "shrink less", masked=True)
    with pytest.raises(UserError, match="5x40 px"):
        Meter("cpu").require_sizes({"small": (5, 40)}, "shrink less")
    with pytest.raises(UserError, match=f"less than {LPIPS_PX} px"):
        Meter("cpu", Lpips(random_backbone("alex"), "alex")).require_sizes(sizes, "shrink less")


def test_weights_that_were_never_looked_for_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.json: no such file"):
        Meter.build(EvaluateConfig(device="cpu"), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_cuda_without_one_is_an_error(no_weights: Path) -> None:
    with pytest.raises(UserError, match="torch sees no GPU"):
        Meter.build(EvaluateConfig(device="cuda"), no_weights)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_gpu_gives_the_numbers_of_the_cpu(random_backbone: Callable, view_of: Callable) -> None:
    """TF32 convolutions would move LPIPS by some 1e-3 of itself."""
    folder = random_backbone("alex")
    view = view_of(mask=np.ones((40, 48), bool))
    here, there = (
        Meter.build(EvaluateConfig(device=device), folder).measure(view)
        for device in ("cpu", "cuda")
    )
    for key in ("psnr", "ssim", "lpips", "mpsnr", "mssim", "mlpips"):
        assert there[key] == pytest.approx(here[key], rel=2e-5), key


@pytest.mark.parametrize("crop", [None, (slice(2, 39), slice(10, 46))])
@pytest.mark.parametrize("partly", [False, True])
def test_other_renders_of_a_view_measure_as_alone(
    random_backbone: Callable,
    view_of: Callable,
    partly: bool,
    crop: Box | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Renders share one pass over their ground truth, in one batch as on a GPU or apart."""
    valid = np.indices((40, 48))[1] < 30 if partly else None
    view = replace(view_of(valid=valid), crop=crop)
    others = [view_of(seed=seed).given for seed in (1, 2, 3)]
    meter = Meter.build(EvaluateConfig(device="cpu"), random_backbone("alex"))
    alone = [meter.measure(replace(view, given=image)) for image in others]
    expected = [{name: row[name] for name in (*MEASURES, *CROPPED)} for row in alone]
    assert all((row[name] is None) == (crop is None) for row in expected for name in CROPPED)
    assert meter.measure_others(view, others) == expected
    monkeypatch.setattr(Meter, "_full", lambda self, batch: len(batch) == 2)
    together = meter.measure_others(view, others)
    for row, wanted in zip(together, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-5)


def test_real_weights_fill_every_column(lpips_weights: Path, view_of: Callable) -> None:
    meter = Meter.build(EvaluateConfig(device="cpu"), lpips_weights)
    view = view_of(mask=np.ones((40, 48), bool))
    row = meter.measure(MeasuredView(**(vars(view) | {"aligned": view.truth})))
    assert 0 < row["lpips"] < 2
    assert row["lpips_aligned"] == 0
    assert 0 < row["mlpips"] < 2
    assert meter.note is None
    assert meter.lpips_name == "alex 889a9ed0"


@pytest.fixture
def two_nets(random_backbone: Callable, tmp_path: Path) -> Path:
    """A folder as stage `weights` writes it, of alex and vgg, and of squeeze not found."""
    marker = {"squeeze": {"found": False, "from": None, "sha256": None, "reason": "no network"}}
    for net in ("alex", "vgg"):
        folder = random_backbone(net)
        shutil.copy(folder / f"{net}.safetensors", tmp_path)
        marker |= read_json(folder / "weights.json")
    write_json(tmp_path / "weights.json", marker)
    return tmp_path


def config_of(*also: Net, net: Net = "alex", required: bool = False) -> EvaluateConfig:
    return EvaluateConfig(device="cpu", lpips=LpipsConfig(net=net, also=also, required=required))


def test_a_further_net_is_measured_beside_the_first(view_of: Callable, two_nets: Path) -> None:
    view = view_of(aligned=view_of(seed=5).truth, mask=np.ones((40, 48), bool))
    view = replace(view, crop=(slice(0, 36), slice(0, 36)))
    meter, alone = (Meter.build(config_of(*also), two_nets) for also in (("vgg",), ()))
    vgg = Lpips(two_nets, "vgg")
    rows, means = evaluate([view], meter, GREY, "people", name="one")
    usual, usual_means = evaluate([view], alone, GREY, "people", name="one")
    truth, given, aligned = map(batch, (view.truth, view.given, view.aligned))
    assert rows[0]["lpips_vgg"] == pytest.approx(float(vgg(truth, given)), abs=1e-6)
    assert rows[0]["lpips_vgg_aligned"] == pytest.approx(float(vgg(truth, aligned)), abs=1e-6)
    assert abs(rows[0]["lpips_vgg"] - rows[0]["lpips"]) > 1e-3
    further = {"lpips_vgg", "lpips_vgg_aligned"}
    assert {key: value for key, value in rows[0].items() if key not in further} == usual[0]
    assert means.keys() - usual_means.keys() == further
    assert means["lpips_vgg"] == rows[0]["lpips_vgg"]
    assert means["protocol"] == usual_means["protocol"].replace(
        "lpips alex 00000000", "lpips alex 00000000 + vgg 00000000"
    )
    assert (columns_of(rows), columns_of(usual)) == ([*COLUMNS, *sorted(further)], COLUMNS)
    blends = meter.measure_others(view, [view.given])
    assert blends == alone.measure_others(view, [view.given]), "blends are by the first net alone"


def test_a_further_net_is_of_the_valid_share_and_of_batches(
    view_of: Callable, two_nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter.build(config_of("vgg"), two_nets)
    valid = np.zeros((40, 48), bool)
    valid[:, :12] = True
    views = [view_of(str(seed), seed) for seed in range(2)]
    views += [replace(view_of("2", 2), valid=valid)]
    single = [meter.measure(view) for view in views]
    monkeypatch.setattr(Meter, "_full", lambda self, batch: False)
    for one, other in zip(single, meter.measure_all(views), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    filled = replace(views[2], given=views[2].filled(views[2].given), valid=None)
    assert single[2]["lpips_vgg"] == pytest.approx(4 * meter.measure(filled)["lpips_vgg"], rel=1e-4)
    assert single[2]["lpips_vgg_aligned"] is None


def test_a_further_net_without_weights_is_left_out_with_a_note(
    view_of: Callable, two_nets: Path
) -> None:
    meter = Meter.build(config_of("squeeze", "vgg"), two_nets)
    assert meter.warnings == ["LPIPS (squeeze) is left out: no weights of squeeze: no network"]
    rows, means = evaluate([view_of()], meter, GREY, "ignore", name="one")
    assert "lpips_vgg" in rows[0]
    assert not [key for key in rows[0] if "squeeze" in key]
    assert means["lpips_note"] is None
    assert means["lpips_squeeze_note"] == "no weights of squeeze: no network"
    with pytest.raises(UserError, match="no weights of squeeze: no network"):
        Meter.build(config_of("squeeze", "vgg", required=True), two_nets)


def test_a_first_net_without_weights_leaves_the_further_ones(
    view_of: Callable, two_nets: Path
) -> None:
    meter = Meter.build(config_of("vgg", net="squeeze"), two_nets)
    assert meter.warnings == ["LPIPS is empty: no weights of squeeze: no network"]
    assert meter.lpips_name == "none + vgg 00000000"
    row = meter.measure(view_of())
    assert row["lpips"] is None
    assert row["lpips_vgg"] > 0


@pytest.mark.parametrize("also", [("alex",), ("vgg", "vgg"), ("vgg", "alex")])
def test_a_net_is_named_once(also: tuple[Net, ...]) -> None:
    with pytest.raises(ValidationError, match="each net once"):
        LpipsConfig(net="alex", also=also)


def test_batches_give_the_rows_of_single_views(
    view_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = np.zeros((40, 48), bool)
    half[:, :24] = True
    views = [view_of(str(seed), seed) for seed in range(5)]
    views += [view_of(str(seed), seed, aligned=view_of(seed=9).truth) for seed in (5, 6)]
    views += [view_of(str(seed), seed, mask=half) for seed in (7, 8)]
    views += [view_of("9", 9, mask=np.zeros((40, 48), bool))]
    meter = Meter("cpu")
    single = evaluate(views, meter, GREY, "people", name="one")
    monkeypatch.setattr(Meter, "_full", lambda self, batch: len(batch) == 3)
    assert [len(batch) for batch in meter.batches(views)] == [3, 2, 2, 2, 1]
    together = evaluate(views, meter, GREY, "people", name="one")
    for one, other in zip([*single[0], single[1]], [*together[0], together[1]], strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_a_gpu_measures_as_many_pixels_as_it_holds(view_of: Callable) -> None:
    views = [view_of()] * 5000
    sizes = [len(batch) for batch in Meter("cuda").batches(views)]
    assert sizes == [8_000_000 // (40 * 48), 5000 - 8_000_000 // (40 * 48)]
