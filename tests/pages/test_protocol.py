"""What was measured, in words: poses and pixels of the study at hand, not of the demo."""

from types import SimpleNamespace

from stages.pages.report.protocol import measured_rows


def rows(calibration: dict, means: dict, protocol: str) -> dict[str, str]:
    results = SimpleNamespace(
        measured=[("Data", "`x`"), ("Protocol", protocol)],
        downstream=["a", "b"],
        calibration=calibration,
        means={"none": means},
        study=SimpleNamespace(methods=("none",)),
    )
    return dict(measured_rows(results))


def test_poses_are_named_by_their_method_and_mean_error() -> None:
    of_scene = {"method": "sfm", "rotation_error_deg": 0.1, "centre_error_m": None}
    found = rows({"a": of_scene, "b": of_scene | {"rotation_error_deg": 0.3}}, {}, "940x1280")
    assert found["Data"] == "x"
    assert "Protocol" not in found
    start = "source cameras: estimated from the images alone, mean error 0.2\N{DEGREE SIGN}; "
    assert found["Poses"].startswith(start)
    assert "not fitted to the images" in found["Poses"]


def test_unknown_poses_are_not_made_up() -> None:
    assert rows({}, {}, "")["Poses"].startswith("target cameras:")


def test_people_are_named_only_where_they_were_measured() -> None:
    protocol = "940x1280, 4 views, lpips alex, masks auto"
    with_people = rows({}, {"crop_psnr": 20.0}, protocol)["Pixels"]
    assert with_people.startswith("whole images of 940x1280 px; people: the box")
    without = rows({}, {"crop_psnr": None}, protocol)["Pixels"]
    assert without == "whole images of 940x1280 px; no masks of people"
