"""The table of static scenes: averages and population deviations of each camera."""

import pytest

from stages.quality.static_table import COLUMNS, averages, static_rows, text


def means(mpsnr: float | None, lpips: float | None = 0.5) -> dict:
    return {
        "mpsnr": mpsnr,
        "mssim": 0.9,
        "mlpips": lpips,
        "psnr": 15.0,
        "ssim": 0.5,
        "lpips": lpips,
        "covisible": 0.4,
        "train_views": 3,
    }


FOUND = {
    ("dog", "iphone"): means(20.0),
    ("dog", "stereo"): means(18.0, None),
    ("cat", "iphone"): means(24.0),
    ("cat", "stereo"): means(None, None),
}


def test_average_and_deviation_are_over_scenes_of_one_camera() -> None:
    rows = static_rows(FOUND)
    assert [(row["scene"], row["camera"]) for row in rows[4:]] == [
        ("Avg", "iphone"),
        ("Avg", "stereo"),
        ("Std", "iphone"),
        ("Std", "stereo"),
    ]
    by_name = {(row["scene"], row["camera"]): row for row in rows}
    assert by_name["Avg", "iphone"]["mpsnr"] == 22.0
    assert by_name["Std", "iphone"]["mpsnr"] == pytest.approx(2.0), "of the population, not 2.83"
    assert by_name["Avg", "stereo"]["mpsnr"] == 18.0, "a scene without a number counts nowhere"
    assert by_name["Avg", "stereo"]["mlpips"] is None
    assert all(set(row) == set(COLUMNS) for row in rows)


def test_metrics_are_the_averages_by_camera() -> None:
    means = averages(static_rows(FOUND))
    assert list(means) == ["iphone", "stereo"]
    assert means["iphone"]["mpsnr"] == 22.0
    assert averages(static_rows({})) == {}


def test_text_has_a_line_for_each_row() -> None:
    lines = text(static_rows(FOUND)).splitlines()
    assert len(lines) == 1 + 8 + 1
    assert "mPSNR dB" in lines[0]
    assert lines[2].split()[:4] == ["dog", "stereo", "3", "18.00"]
    assert lines[-2].split()[0] == "Std"
