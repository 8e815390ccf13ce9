"""Tables of the report: signs, order and what counts as good."""

from types import SimpleNamespace

import pytest

from stages.pages.report.other_tables import other_tables
from stages.pages.report.tables import Cell, deltas_tables, methods_tables, number, style_of
from stages.quality.keys import AVERAGED, NONE_MEAN


def means(**values: float) -> dict:
    return dict.fromkeys(AVERAGED) | values


def test_best_of_a_column_is_the_least_of_lpips_and_the_most_of_psnr() -> None:
    results = SimpleNamespace(
        study=SimpleNamespace(methods=("none", "tuned-post")),
        means={
            "none": means(psnr=21.0, lpips=0.2),
            "tuned-post": means(psnr=22.0, lpips=0.1),
        },
    )
    (found,) = methods_tables(results)
    assert found.columns == ("method", "PSNR, dB", "LPIPS"), "what no method has is left out"
    styles = [[cell.style for cell in row[1:]] for row in found.rows]
    assert styles == [["", ""], ["best", "best"]]


def test_mean_of_seeds_people_and_flicker_have_rows_and_columns() -> None:
    results = SimpleNamespace(
        study=SimpleNamespace(methods=("none",)),
        means={
            "none": means(psnr=21.0, flicker=1.5, crop_psnr=20.0, cc_psnr=21.5, lpips_aligned=0.2),
            NONE_MEAN: means(psnr=22.0, flicker=1.2, crop_psnr=20.5, mpsnr=19.0),
        },
    )
    whole, people, aligned = methods_tables(results)
    assert whole.columns == ("method", "PSNR, dB", "PSNR colour-corrected, dB", "flicker")
    assert [cell.text for cell in whole.rows[1]] == [NONE_MEAN, "22.00", "\N{EN DASH}", "1.2000"]
    assert whole.rows[1][3].style == "best", "less flicker is better"
    assert people.columns == ("method", "PSNR of people, dB", "mPSNR, dB")
    assert aligned.columns == ("method", "LPIPS aligned")
    assert len({one.id for one in (whole, people, aligned)}) == 3


def test_difference_below_the_noise_is_not_coloured_and_says_so() -> None:
    row = {"comparison": "a_vs_none", "scene": "mean", "metric": "psnr", "difference": 0.12}
    row |= {"low": 0.1, "high": 0.14, "won": 2, "sign_flip_p": 0.5}
    styles, details = [], []
    for least in (0.13, 0.11, None):
        results = SimpleNamespace(
            deltas=[row], downstream=["s", "t"], least=lambda _, one=least: one
        )
        (found,) = deltas_tables(results)
        styles.append(found.rows[0][1].style)
        details.append(found.rows[0][1].detail.splitlines()[2:])
    assert styles == ["open", "good", "open"], "without a floor nothing is a gain"
    assert details == [["below the noise floor"], ["gain"], []]


def test_repeat_is_not_judged_by_the_noise_that_it_makes() -> None:
    row = {"scene": "mean", "metric": "psnr", "difference": 0.2, "low": 0.1, "high": 0.3}
    row |= {"won": 2, "sign_flip_p": 0.5}
    rows = [row | {"comparison": f"{name}_vs_none"} for name in ("tuned-post", "seed1")]
    results = SimpleNamespace(deltas=rows, downstream=["s", "t"], least=lambda _: 0.13)
    (found,) = deltas_tables(results)
    assert [cells[1].style for cells in found.rows] == ["good", "open"]
    assert "gain" not in found.rows[1][1].detail


def test_numbers_have_true_signs_and_missing_ones_sort_as_nothing() -> None:
    assert number(-0.5, "+.2f") == Cell("\N{MINUS SIGN}0.50", -0.5)
    assert number(None, ".2f") == Cell("\N{EN DASH}", "")


@pytest.mark.parametrize(
    ("metric", "difference", "low", "high", "style"),
    [
        ("psnr", 0.2, 0.1, 0.3, "good"),
        ("psnr", -0.2, -0.3, -0.1, "bad"),
        ("lpips", 0.2, 0.1, 0.3, "bad"),
        ("ssim", 0.2, -0.1, 0.5, "open"),
        ("ssim", 0.2, None, None, "open"),
    ],
)
def test_only_an_interval_without_zero_is_good_or_bad(metric, difference, low, high, style) -> None:
    assert style_of(metric, difference, low, high, least=0.1) == style
    assert style_of(metric, difference, low, high) == "open", "no noise floor"


def test_captures_have_their_measures_in_tables_and_the_rest_folded_below() -> None:
    results = {
        "room/combined": {"psnr": 20.5, "note": "x", "lpips": None, "eval.psnr": 19.5},
        "room/tuned/combined-post": {"psnr": 21.5, "mpsnr": 18.0, "views": 3},
        "room/calibrate": {"registered": 7},
    }
    whole, masked, details = other_tables("captures", results)
    assert whole.columns == ("capture", "variant", "method", "views", "PSNR, dB"), "none has LPIPS"
    assert whole.numeric == {"views", "PSNR, dB"}
    dash = "\N{EN DASH}"
    assert [[cell.text for cell in row] for row in whole.rows] == [
        ["room", "combined", "none", dash, "20.50"],
        ["room", "combined", "tuned-post", "3", "21.50"],
        ["room", "combined eval", "none", dash, "19.50"],
    ]
    assert [cell.text for cell in masked.rows[0]] == ["room", "combined", "3", "18.00"]
    assert "m" in masked.caption
    assert details.columns == ("capture", "variant", "quantity", "value")
    assert [[cell.text for cell in row] for row in details.rows] == [
        ["room", "combined", "note", "x"],
        ["room", "calibrate", "registered", "7"],
    ]
    assert (whole.folded, details.folded) == (False, True)
    assert len({whole.id, masked.id, details.id}) == 3


def test_static_scenes_have_their_means_only_where_there_are_several() -> None:
    results = {
        "scenes/a/stereo": {"psnr": 20.0, "mpsnr": 21.0, "covisible": 0.5, "train_views": 2},
        "scenes/a/tuned/stereo-post": {"psnr": 22.0, "mpsnr": 21.0, "covisible": 0.5},
        "table": {"stereo.psnr": 20.0, "stereo by tuned-post.psnr": 22.0},
        "train/a/stereo": {"psnr": 33.0, "views": 2},
        "prepare/a": {"registered": 7},
    }
    whole, masked, train, details = other_tables("static", results)
    assert whole.columns == ("scene", "cameras", "method", "training views", "PSNR, dB")
    assert [cell.text for cell in whole.rows[1]][:3] == ["a", "stereo", "tuned-post"]
    assert masked.columns[-2:] == ("covisible", "mPSNR, dB")
    assert masked.rows[0][-2].text == "0.500"
    assert "training views" in train.caption
    assert train.folded
    assert details.folded
    first, *_ = other_tables("static", results | {"scenes/b/stereo": {"psnr": 30.0}})
    assert first.caption == "Whole images, means over scenes"
    assert [[cell.text for cell in row] for row in first.rows] == [
        ["stereo", "none", "20.00"],
        ["stereo", "tuned-post", "22.00"],
    ]
