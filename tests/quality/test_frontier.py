"""Methods at equal SSIM and PSNR: known crossings, planted fixers, and the cover of intervals."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

from stages.quality.blends import measure_strengths
from stages.quality.evaluation import MeasuredView, Meter, evaluate
from stages.quality.frontier import Curve, Frontiers, compare_curves
from stages.quality.keys import CROPPED, MEASURED, MEASURES
from stages.quality.metrics.lpips import Lpips

STRENGTHS = np.linspace(0, 1, 9)
FLOOR = {"psnr_least": 0.01, "ssim_least": 0.0001, "lpips_least": 0.001}


def exact_curve(fall: float, strengths: np.ndarray = STRENGTHS) -> Curve:
    """SSIM and PSNR that rise and then fall back to where they began; LPIPS that decays."""
    hill = strengths * (1 - strengths)
    return Curve.of(
        strengths, ssim=0.8 + 0.2 * hill, psnr=20 + 4 * hill, lpips=0.3 * np.exp(-fall * strengths)
    )


@pytest.mark.parametrize(("by", "start", "scale"), [("ssim", 0.8, 0.2), ("psnr", 20.0, 4.0)])
def test_crossings_are_where_they_are_known_to_be(by: str, start: float, scale: float) -> None:
    curve = exact_curve(1.5)
    assert curve.highest(by) == pytest.approx(start + scale / 4, abs=1e-9)
    for share in (0.0, 0.01, 0.1, 0.2, 0.249):
        later = (1 + math.sqrt(1 - 4 * share)) / 2  # where s (1 - s) is `share` on the way down
        found = curve.best(by, [start + share * scale])[0]
        assert found == pytest.approx(0.3 * math.exp(-1.5 * later), abs=2e-5)
    assert curve.best(by, [start + scale])[0] == np.inf


def test_curves_that_cross_in_strength_are_compared_where_they_are_equal() -> None:
    """Equal PSNR and SSIM at every strength; the gap is known in closed form."""
    pairs = {"a": (exact_curve(1.5), exact_curve(1.0)), "b": (exact_curve(1.6), exact_curve(1.0))}
    found = compare_curves(pairs, 0.95, {}, plain=False)
    later = (1 + np.sqrt(1 - 4 * np.linspace(0, 0.25, 20001))) / 2
    for scene, fall in (("a", 1.5), ("b", 1.6)):
        known = np.mean(0.3 * (np.exp(-fall * later) - np.exp(-later)))
        for name in ("lpips_at_ssim", "lpips_at_psnr"):
            gap = found[scene][name] - known
            # The mean is over 101 levels, which is no error of interpolation.
            assert abs(gap) <= found["mean"][f"{name}_error"] + 2e-4
            assert found["mean"][f"{name}_error"] < 1e-3


def test_error_of_few_strengths_is_stated_and_larger() -> None:
    errors = {}
    for count in (2, 3, 5, 9):
        steps = np.linspace(0, 1, count)
        pairs = {one: (exact_curve(3.0, steps), exact_curve(1.0, steps)) for one in "ab"}
        mean = compare_curves(pairs, 0.95, {}, plain=False)["mean"]
        errors[count] = mean["lpips_at_ssim_error"]
    assert errors[2] is None
    assert errors[3] > errors[5] > errors[9]


Law = Callable[[np.ndarray], np.ndarray]


def random_laws(random: np.random.Generator) -> dict[str, Law]:
    """Smooth laws of the strength: SSIM and PSNR rise and then mostly fall, LPIPS mostly falls."""
    rise, fall = random.uniform(-0.02, 0.06), random.uniform(0.02, 0.1)
    decay, late = random.uniform(0.5, 3), random.uniform(-0.02, 0.08)
    return {
        "ssim": lambda s: 0.8 + rise * s - fall * s**2 + 0.01 * late * np.sin(3 * s),
        "psnr": lambda s: 20 + 20 * rise * s - 25 * fall * s**2,
        "lpips": lambda s: 0.3 - 0.1 * np.expm1(-decay * s) / np.expm1(-decay) + late * s**2,
    }


def exact_gap(one: dict[str, Law], other: dict[str, Law], by: str) -> float:
    """The mean difference of the best LPIPS at equal PSNR or SSIM, from the laws themselves."""
    strengths = np.linspace(0, 1, 20001)
    sides = [(of[by](strengths), of["lpips"](strengths)) for of in (one, other)]
    low, high = max(x.min() for x, _ in sides), min(x.max() for x, _ in sides)
    levels = np.linspace(low, high, 101)
    best = []
    for x, y in sides:
        order = np.argsort(-x)
        lowest = np.minimum.accumulate(y[order])
        last = np.searchsorted(-x[order], -levels + 1e-12, side="right") - 1
        best.append(lowest[np.maximum(last, 0)])
    return float(np.mean(best[0] - best[1]))


def test_stated_error_covers_the_known_gap_of_curves_that_rise_and_fall() -> None:
    """Ranges overlap in part; the grid of strengths leaves some 1e-6 that no estimate sees."""
    random, covered, errors = np.random.default_rng(0), [], []
    for _ in range(40):
        laws = random_laws(random), random_laws(random)
        curves = [Curve.of(STRENGTHS, **{k: f(STRENGTHS) for k, f in of.items()}) for of in laws]
        mean = compare_curves({"a": tuple(curves)}, 0.95, {}, plain=False)["mean"]
        for by in ("ssim", "psnr"):
            error = mean[f"lpips_at_{by}_error"]
            gap = abs(mean[f"lpips_at_{by}"] - exact_gap(*laws, by))
            covered.append(gap <= error + 5e-6)
            errors.append(error)
    assert np.mean(covered) >= 0.95
    assert np.median(errors) < 1e-4, "an error that covers all by its size is of no use"


def straight(ssim: tuple[float, float], lpips: tuple[float, float] = (0.3, 0.2)) -> Curve:
    """Over straight lines from strength 0 to 1."""
    lines = {"ssim": ssim, "psnr": (100 * ssim[0], 100 * ssim[1]), "lpips": lpips}
    return Curve.of(STRENGTHS, **{k: np.linspace(*ends, 9) for k, ends in lines.items()})


def test_curves_are_compared_over_the_range_that_both_reach() -> None:
    """At SSIM 0.85 and more, which both have, one has 0.05 less; elsewhere nothing counts."""
    one = straight((0.95, 0.85))  # LPIPS 0.2 at 0.85
    other = straight((0.9, 0.8))  # LPIPS 0.25 at 0.85
    found = compare_curves(dict.fromkeys("ab", (one, other)), 0.95, FLOOR, plain=False)
    assert found["mean"]["lpips_at_ssim"] == pytest.approx(-0.05, abs=1e-6)
    assert found["verdict"] == "dominates"
    assert found["mean"]["common_ssim"] == pytest.approx(0.05)
    assert found["mean"]["common_ssim_scenes"] == 2
    start = compare_curves(
        dict.fromkeys("ab", (one, straight((0.95, 0.99)))), 0.95, FLOOR, plain=False
    )
    assert (start["mean"]["common_ssim"], start["mean"]["common_ssim_scenes"]) == (0, 0)


def test_curves_without_a_common_range_are_not_extrapolated() -> None:
    pairs = dict.fromkeys("ab", (straight((0.95, 0.9)), straight((0.85, 0.8))))
    found = compare_curves(pairs, 0.95, FLOOR, plain=False)
    assert found["verdict"] == "no common range"
    assert found["mean"]["lpips_at_ssim"] is None
    assert found["a"]["lpips_at_psnr"] is None
    assert found["mean"]["highest_ssim"] == pytest.approx(0.1)


def test_curves_of_one_value_are_compared_at_it() -> None:
    flat, other = straight((0.9, 0.9), (0.3, 0.25)), straight((0.9, 0.9), (0.3, 0.2))
    found = compare_curves(dict.fromkeys("ab", (other, flat)), 0.95, FLOOR, plain=False)
    assert found["mean"]["lpips_at_ssim"] == pytest.approx(-0.05)
    assert found["mean"]["lpips_at_ssim_error"] == pytest.approx(0, abs=1e-9)
    same = compare_curves(dict.fromkeys("ab", (flat, flat)), 0.95, FLOOR, plain=False)
    assert same["verdict"] == "no difference shown"
    assert same["mean"]["lpips_at_psnr"] == 0


def curve_of(fixed_lpips: float, psnr: float, ssim: float) -> Curve:
    ends = {"psnr": (20.0, psnr), "ssim": (0.8, ssim), "lpips": (0.2, fixed_lpips)}
    return Curve.of([0, 0.5, 1], **{k: [a, (a + b) / 2, b] for k, (a, b) in ends.items()})


PLAIN_CURVE = Curve.of([0], psnr=[20.0], ssim=[0.8], lpips=[0.2])


@pytest.mark.parametrize(
    ("lpips", "psnr", "ssim", "verdict"),
    [
        (0.15, 20.5, 0.82, "dominates"),
        (0.25, 19.5, 0.78, "is dominated"),
        (0.15, 19.5, 0.78, "trades"),
        (0.25, 20.5, 0.82, "trades"),
        (0.2, 20.0, 0.8, "no difference shown"),
    ],
)
def test_verdict_against_none(lpips: float, psnr: float, ssim: float, verdict: str) -> None:
    pairs = {
        scene: (curve_of(lpips + move * (lpips != 0.2), psnr, ssim), PLAIN_CURVE)
        for scene, move in (("a", 0.0), ("b", 0.0002), ("c", -0.0002))
    }
    assert compare_curves(pairs, 0.95, FLOOR, plain=True)["verdict"] == verdict
    unmeasured = compare_curves(pairs, 0.95, {}, plain=True)["verdict"]
    assert unmeasured == ("difference" if verdict != "no difference shown" else verdict)
    alone = compare_curves({"a": pairs["a"]}, 0.95, FLOOR, plain=True)
    assert alone["mean"]["full_psnr_t_low"] is None
    if verdict != "no difference shown":
        assert alone["verdict"] == "one scene has no interval"
    if verdict == "dominates":
        floor = FLOOR | {"lpips_least": 0.06}
        # PSNR and SSIM of full strength gain all the same.
        assert compare_curves(pairs, 0.95, floor, plain=True)["verdict"] == "gains in part"
        floor = dict.fromkeys(FLOOR, 0.6)
        assert compare_curves(pairs, 0.95, floor, plain=True)["verdict"] == "no difference shown"


def test_gain_that_a_blend_of_the_other_also_gives_is_none() -> None:
    """PSNR and SSIM rise at full strength; at equal ones the other has the better LPIPS."""
    other = Curve.of(
        [0, 0.5, 1], psnr=[26, 26.6, 26.1], ssim=[0.9, 0.93, 0.91], lpips=[0.24, 0.19, 0.18]
    )
    tuned = Curve.of(
        [0, 0.5, 1], psnr=[26, 26.5, 26.6], ssim=[0.9, 0.92, 0.93], lpips=[0.24, 0.21, 0.2]
    )
    pairs = dict.fromkeys("abc", (tuned, other))
    found = compare_curves(pairs, 0.95, FLOOR, plain=False)
    assert found["mean"]["full_psnr"] > 0
    assert found["verdict"] in {"is dominated", "trades"}
    assert found["mean"]["lpips_at_ssim"] > 0


class _Detail(torch.nn.Module):
    """A distance of detail: of the images' differences between neighbours."""

    def activations_of(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images.diff(dim=-1).abs()]

    def between(self, a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
        return (a[0] - b[0]).abs().mean(dim=(1, 2, 3))


def photographs() -> list[np.ndarray]:
    image = data.astronaut().astype(np.float32) / 255
    return [
        np.ascontiguousarray(image[y : y + 96, x : x + 96])
        for y, x in ((0, 150), (60, 180), (120, 120), (200, 240))
    ]


def raw_of(truth: np.ndarray, seed: int) -> np.ndarray:
    """A render's kinds of error: blurred detail, moved edges, and smooth spots."""
    random = np.random.default_rng(seed)
    spots = gaussian_filter(random.standard_normal(truth.shape), (4, 4, 0)) * 0.9
    blurred = gaussian_filter(np.roll(truth, 1, axis=seed % 2), (0.8, 0.8, 0))
    return np.clip(blurred + spots, 0, 1).astype(np.float32)


FIXERS = {
    "sharpened": lambda raw, truth: raw + 1.5 * (raw - gaussian_filter(raw, (1, 1, 0))),
    "blurred": lambda raw, truth: gaussian_filter(raw, (1.2, 1.2, 0)),
    "real": lambda raw, truth: raw + 0.5 * (truth - raw),
}


@pytest.mark.parametrize(
    ("fixer", "gain"), [("sharpened", False), ("blurred", False), ("real", True)]
)
def test_planted_fixers(lpips_weights: Path, fixer: str, gain: bool) -> None:
    meter = Meter("cpu", Lpips(lpips_weights, "alex"), "alex")
    points = {}
    for seed, truth in enumerate(photographs()):
        raw = raw_of(truth, seed)
        fixed = np.clip(FIXERS[fixer](raw, truth), 0, 1).astype(np.float32)
        sides = {
            name: [MeasuredView("000001", "28", truth, "0", given=image)]
            for name, image in (("none", raw), ("base-post", fixed))
        }
        means = {name: meter.measure(of[0]) | {"views": 1} for name, of in sides.items()}
        for name, rows in measure_strengths(
            sides.__getitem__, STRENGTHS.tolist(), meter, means
        ).items():
            points[f"scene{seed}", name] = rows
    frontiers = Frontiers(points)
    pairs = {
        f"scene{n}": (
            frontiers.curve(f"scene{n}", "base-post"),
            frontiers.curve(f"scene{n}", "none"),
        )
        for n in range(4)
    }
    found = compare_curves(pairs, 0.95, FLOOR, plain=True)
    assert (found["verdict"] == "dominates") == gain, found["mean"]


def test_interval_covers_the_known_difference() -> None:
    """Over 2,000 draws of four scenes, whose gaps vary around a known one."""
    random = np.random.default_rng(0)
    draws, covered = 2000, 0
    for _ in range(draws):
        pairs = {}
        for scene in "abcd":
            psnr, gain = 20 + random.normal(), 0.03 + 0.004 * random.normal()
            fixed = Curve.of(
                [0, 1], psnr=[psnr, psnr + 1], ssim=[0.8, 0.9], lpips=[0.2, 0.2 - gain]
            )
            pairs[scene] = (fixed, Curve.of([0], psnr=[psnr], ssim=[0.8], lpips=[0.2]))
        mean = compare_curves(pairs, 0.95, {}, plain=True)["mean"]
        covered += mean["lpips_at_ssim_t_low"] <= -0.03 <= mean["lpips_at_ssim_t_high"]
    assert abs(covered / draws - 0.95) < 3 * math.sqrt(0.95 * 0.05 / draws)


def test_known_strengths_are_taken_and_equal_measured_ones() -> None:
    meter = Meter("cpu", _Detail(), "detail")
    truth = photographs()[0]
    raw, fixed = raw_of(truth, 0), raw_of(truth, 1)
    view = MeasuredView("000001", "28", truth, "0", given=raw)
    sides = {"none": [view], "base-post": [replace(view, given=fixed)]}
    means = {name: meter.measure(of[0]) | {"views": 1} for name, of in sides.items()}
    rows = measure_strengths(sides.__getitem__, [0.0, 0.5, 1.0], meter, means)
    assert [row["strength"] for row in rows["base-post"]] == [0, 0.5, 1]
    for row, method in ((rows["base-post"][0], "none"), (rows["base-post"][2], "base-post")):
        assert {name: row[name] for name in MEASURES} == {n: means[method][n] for n in MEASURES}
    without = measure_strengths(
        sides.__getitem__, [0.0, 0.5, 1.0], meter, {"base-post": means["base-post"]}
    )
    assert without["base-post"] == rows["base-post"]
    assert len(rows["none"]) == 1


def test_crops_of_blends_are_measured_as_those_of_fixed_views() -> None:
    """Of the views that have one; a blend is measured like a view that is equal to it."""
    meter = Meter("cpu", _Detail(), "detail")
    crops = (slice(20, 70), slice(10, 60)), (slice(0, 40), slice(30, 96)), None
    sides: dict[str, list[MeasuredView]] = {
        "none": [],
        "base-post": [],
        "tuned-post": [],
        "half": [],
    }
    for seed, (truth, crop) in enumerate(zip(photographs()[:3], crops, strict=True)):
        raw, fixed = raw_of(truth, seed), raw_of(truth, seed + 5)
        images = raw, fixed, raw_of(truth, seed + 9), raw + np.float32(0.5) * (fixed - raw)
        for method, image in zip(sides, images, strict=True):
            view = MeasuredView(f"{seed}", "28", truth, "0", given=image, crop=crop)
            sides[method].append(view)
    means = {
        name: evaluate(of, meter, np.zeros(3), "auto", name=name)[1] for name, of in sides.items()
    }
    half = means.pop("half")
    rows = measure_strengths(sides.__getitem__, [0.0, 0.5, 1.0], meter, means)
    for row, of in zip(rows["base-post"], (means["none"], half, means["base-post"]), strict=True):
        assert {name: row[name] for name in (*MEASURES, *CROPPED)} == {
            name: pytest.approx(of[name], abs=2e-6) for name in (*MEASURES, *CROPPED)
        }
    assert rows["tuned-post"][1]["crop_psnr"] != rows["base-post"][1]["crop_psnr"]
    whole = {name: [replace(one, crop=None) for one in of] for name, of in sides.items()}
    means = {name: of | dict.fromkeys(CROPPED) for name, of in means.items()}
    without = measure_strengths(whole.__getitem__, [0.0, 0.5, 1.0], meter, means)
    for method, of_method in rows.items():
        assert without[method] == [row | dict.fromkeys(CROPPED) for row in of_method]


def test_strength_is_chosen_on_the_internal_scene_alone() -> None:
    def points(psnr: list[float]) -> list[dict]:
        row = dict.fromkeys(MEASURED)
        return [
            row | {"strength": s, "psnr": p} for s, p in zip((0.0, 0.5, 1.0), psnr, strict=True)
        ]

    frontiers = Frontiers(
        {("in", "base-post"): points([1, 3, 2]), ("out", "base-post"): points([1, 2, 9])}
    )
    assert frontiers.choose_strengths(["in"]) == {"base-post": 0.5}
    assert frontiers.choose_strengths(["absent"]) == {"base-post": 1.0}
    assert frontiers.at("out", "base-post", 0.5)["psnr"] == 2
