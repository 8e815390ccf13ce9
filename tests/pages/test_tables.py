"""Tables of the report: signs, order and what counts as good."""

from types import SimpleNamespace

import pytest

from stages.pages.report.tables import Cell, methods_table, number, plain_tables, style_of
from stages.quality.keys import AVERAGED


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
    found = methods_table(results)
    assert found.columns == ("method", "PSNR, dB", "LPIPS"), "what no method has is left out"
    styles = [[cell.style for cell in row[1:]] for row in found.rows]
    assert styles == [["", ""], ["best", "best"]]


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
    assert style_of(metric, difference, low, high) == style


def test_other_results_have_their_measures_in_one_table_and_the_rest_below() -> None:
    views = {
        "a": {"psnr": 20.5, "note": "x", "lpips": None, "eval.psnr": 19.5},
        "b": dict.fromkeys(("psnr", "note", "lpips")),
    }
    first, second = plain_tables("captures", views | {"c": {"registered": 7}})
    assert first.columns == ("result", "PSNR, dB"), "nothing has an lpips"
    assert first.numeric == {"PSNR, dB"}
    assert "captures" in first.caption
    assert [[cell.text for cell in row] for row in first.rows] == [
        ["a", "20.50"],
        ["a eval", "19.50"],
    ]
    assert second.columns == ("result", "quantity", "value")
    assert [[cell.text for cell in row] for row in second.rows] == [
        ["a", "note", "x"],
        ["c", "registered", "7"],
    ]
    assert first.id != second.id
