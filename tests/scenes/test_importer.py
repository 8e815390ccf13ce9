"""Raw sequence to prepared scene: geometry of the images, choice of frames, what is refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import center_of_mass

from stages.run.errors import UserError
from stages.run.files import folder_hash
from stages.scenes.config import PrepareConfig, SceneEntry
from stages.scenes.scene import Scene
from stages.scenes.sources.importer import choose_frames, import_scene, spread_evenly

Writer = Callable[..., Path]
CURVED = (-0.12, 0.05, 0.004, -0.003, 0.01)


def entry(**changes: object) -> SceneEntry:
    values = {"source": "hi4d", "source_cameras": ("28", "4"), "target_cameras": ("16",)}
    return SceneEntry(**(values | changes))


def prepared(
    raw: Path, folder: Path, config: PrepareConfig | None = None, **changes: object
) -> Scene:
    folder.mkdir()
    import_scene("pair_x", entry(**changes), config or PrepareConfig(), raw, folder)
    return Scene.read(folder)


@pytest.mark.parametrize("height_px", [0, 64, 100])
@pytest.mark.parametrize("skew", [0.0, 3.0])
def test_landmarks_lie_in_the_images_where_the_prepared_cameras_project_them(
    tmp_path: Path, raw_sequence: Writer, landmarks: np.ndarray, height_px: int, skew: float
) -> None:
    """The whole chain: poses, distortion, skew, scaling and the half-pixel convention."""
    raw = raw_sequence(
        tmp_path / "raw", frames=(21,), size=(300, 400), distortion=CURVED, skew=skew
    )
    scene = prepared(raw, tmp_path / "scene", PrepareConfig(height_px=height_px * 4))
    height = height_px * 4 or 400
    for view in scene.views():
        assert (view.camera.width, view.camera.height) == (round(300 * height / 400), height)
        assert view.camera.K[0, 1] == 0
        green = view.pixels()[..., 1]
        pixels, _ = view.camera.project(landmarks)
        for x, y in pixels:
            row, column = int(y), int(x)
            near = green[row - 6 : row + 7, column - 6 : column + 7]
            found_y, found_x = center_of_mass(near)
            assert abs(column - 6 + found_x + 0.5 - x) < 0.25
            assert abs(row - 6 + found_y + 0.5 - y) < 0.25


def test_undistortion_is_a_switch(
    tmp_path: Path, raw_sequence: Writer, landmarks: np.ndarray
) -> None:
    raw = raw_sequence(tmp_path / "raw", frames=(21,), distortion=CURVED)
    plain = prepared(raw, tmp_path / "plain", PrepareConfig(undistort=False))
    for view in plain.views():
        original = Image.open(raw / "images" / view.name / "000021.png")
        np.testing.assert_array_equal(np.rint(255 * view.pixels()), np.asarray(original))
    straight = prepared(raw, tmp_path / "straight", PrepareConfig(undistort=True))
    assert folder_hash(tmp_path / "plain" / "frames") != folder_hash(straight.folder / "frames")


@pytest.mark.parametrize(
    ("distortion", "outside"),
    [
        ((0.6, 0.0, 0.0, 0.0, 0.0), True),
        ((-2.5, 0, 0, 0, 0), True),
        (CURVED, False),
        ((0.0,) * 5, False),
    ],
)
def test_pixels_outside_the_image_are_black_and_masked(
    tmp_path: Path,
    raw_sequence: Writer,
    caplog: pytest.LogCaptureFixture,
    distortion: tuple[float, ...],
    outside: bool,
) -> None:
    """Pincushion corners look beyond the image; a strong barrel turns back in them."""
    caplog.set_level(logging.INFO)
    raw = raw_sequence(tmp_path / "raw", frames=(21,), distortion=distortion)
    scene = prepared(raw, tmp_path / "scene", PrepareConfig(height_px=64))
    assert ("camera 28: " in caplog.text) is outside
    for view in scene.views():
        valid = view.valid()
        assert (valid is not None) is outside
        if valid is not None:
            assert 0.3 < valid.mean() < 0.99
            assert not valid[0, 0]
            assert valid[32, 24]
            assert not view.pixels()[~valid].any()
            assert view.valid_pixels().shape == (1, valid.sum(), 3)


def test_a_larger_height_does_not_enlarge(tmp_path: Path, raw_sequence: Writer) -> None:
    scene = prepared(raw_sequence(tmp_path / "raw"), tmp_path / "scene", PrepareConfig())
    assert {view.pixels().shape for view in scene.views()} == {(128, 96, 3)}


def test_roles_groups_and_frames_reach_the_scene(tmp_path: Path, raw_sequence: Writer) -> None:
    raw = raw_sequence(tmp_path / "raw", frames=(7, 8, 9, 12), suffix=".jpg")
    scene = prepared(raw, tmp_path / "scene", timestamps=2, group="pair33", licence="only here")
    assert scene.timestamps == ["000007", "000012"]
    assert [view.name for view in scene.views("source", "000007")] == ["28", "4"]
    assert [view.name for view in scene.views("target")] == ["16", "16"]
    assert scene.group == "pair33"
    info = json.loads((scene.folder / "scene.json").read_text())
    assert (info["licence"], info["source"], info["timestamps"]) == (
        "only here",
        "hi4d",
        ["000007", "000012"],
    )
    table = (scene.folder / "split.csv").read_text().splitlines()
    assert table[0] == "image,camera,timestamp,role"
    assert table[1] == "frames/000007/images/28.png,28,000007,source"
    assert len(table) == 7


def test_images_belong_to_their_own_frame(tmp_path: Path, raw_sequence: Writer) -> None:
    """The red channel of the raw images holds the frame's number."""
    scene = prepared(raw_sequence(tmp_path / "raw"), tmp_path / "scene")
    for view in scene.views():
        assert int(np.median(np.rint(view.pixels()[..., 0] * 255))) == int(view.timestamp)


def test_masks_follow_the_images(tmp_path: Path, raw_sequence: Writer) -> None:
    raw = raw_sequence(tmp_path / "raw", distortion=CURVED)
    scene = prepared(raw, tmp_path / "scene", PrepareConfig(height_px=64))
    for view in scene.views():
        mask = view.mask()
        assert mask.shape == (64, 48)
        assert mask[4:28, 4:20].all()
        assert mask[36:60, 28:44].all()
        assert not mask[4:28, 28:44].any()
    without = prepared(raw, tmp_path / "without", PrepareConfig(masks=False))
    assert not list(without.folder.rglob("masks"))
    assert {view.mask() for view in without.views()} == {None}


def test_each_timestamp_opens_in_colmap(tmp_path: Path, raw_sequence: Writer) -> None:
    scene = prepared(raw_sequence(tmp_path / "raw"), tmp_path / "scene")
    for timestamp in scene.timestamps:
        here = scene.folder / "frames" / timestamp
        model = pycolmap.Reconstruction(here / "sparse" / "0")
        names = {image.name for image in model.images.values()}
        assert names == {path.name for path in (here / "images").iterdir()}
        for view in scene.views(timestamp=timestamp):
            image = next(i for i in model.images.values() if i.name == view.image_path.name)
            pose = image.cam_from_world().matrix()
            np.testing.assert_allclose(pose, view.camera.cam_from_world[:3], atol=1e-9)
            np.testing.assert_allclose(image.camera.calibration_matrix(), view.camera.K, rtol=1e-12)


def test_the_same_raw_data_gives_the_same_bytes(tmp_path: Path, raw_sequence: Writer) -> None:
    raw = raw_sequence(tmp_path / "raw", distortion=CURVED)
    hashes = {
        folder_hash(prepared(raw, tmp_path / name, PrepareConfig(height_px=50)).folder)
        for name in ("a", "b")
    }
    assert len(hashes) == 1


def test_the_report_counts_dropped_frames(tmp_path: Path, raw_sequence: Writer) -> None:
    raw = raw_sequence(tmp_path / "raw")
    (raw / "images" / "16" / "000022.png").unlink()
    (tmp_path / "scene").mkdir()
    line = import_scene("a", entry(), PrepareConfig(), raw, tmp_path / "scene")
    assert "2 of 2 shared frames (1 not in every camera)" in line
    assert "2 source cameras, 1 target camera, 96x128 px" in line
    assert "\n" not in line


def test_images_that_change_size_are_refused(tmp_path: Path, raw_sequence: Writer) -> None:
    raw = raw_sequence(tmp_path / "raw")
    path = raw / "images" / "4" / "000022.png"
    Image.open(path).resize((90, 128)).save(path)
    with pytest.raises(UserError, match=r"4/000022\.png: 90x128 px") as caught:
        prepared(raw, tmp_path / "scene")
    assert "96x128 px, the size of 000021.png" in str(caught.value)


def test_a_truncated_image_is_named(tmp_path: Path, raw_sequence: Writer) -> None:
    raw = raw_sequence(tmp_path / "raw", suffix=".jpg")
    path = raw / "images" / "28" / "000023.jpg"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(UserError, match="not a whole image") as caught:
        prepared(raw, tmp_path / "scene")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [3, 5, 6, 7, 10, 11]),
        ({"timestamps": 1}, [3]),
        ({"timestamps": 2}, [3, 11]),
        ({"timestamps": 99}, [3, 5, 6, 7, 10, 11]),
        ({"first_frame": 5, "last_frame": 10}, [5, 6, 7, 10]),
        ({"first_frame": 4, "frame_step": 2}, [5, 7, 11]),
        ({"first_frame": 5, "last_frame": 10, "timestamps": 2}, [5, 10]),
    ],
)
def test_an_entry_chooses_frames(changes: dict[str, int], expected: list[int]) -> None:
    assert choose_frames("a", [3, 5, 6, 7, 10, 11], entry(**changes)) == expected


def test_limits_outside_the_sequence_say_what_it_has() -> None:
    with pytest.raises(UserError, match="no frame from 40 to 60") as caught:
        choose_frames("a", [3, 5, 6], entry(first_frame=40, last_frame=60))
    assert "3 to 6" in str(caught.value)


@pytest.mark.parametrize("count", range(1, 12))
def test_sampled_frames_are_spread_over_the_whole_run(count: int) -> None:
    frames = list(range(100, 111))
    chosen = spread_evenly(frames, count)
    assert len(chosen) == len(set(chosen)) == count
    assert chosen == sorted(chosen)
    assert chosen[0] == 100
    assert count == 1 or chosen[-1] == 110
    assert count == 1 or np.ptp(np.diff(chosen)) <= 1


def test_cameras_may_be_numbers_or_text() -> None:
    """`-S` hands numbers over."""
    read = entry(source_cameras=(4, "16"), target_cameras=(28,))
    assert read.cameras == ("4", "16", "28")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source_cameras": ()}, "at least 1 item"),
        ({"target_cameras": ()}, "at least 1 item"),
        ({"target_cameras": ("4",)}, "more than once: 4"),
        ({"source_cameras": ("4", 4)}, "more than once: 4"),
        ({"source_cameras": (True,)}, "valid string"),
        ({"first_frame": 9, "last_frame": 8}, "is before"),
        ({"source": "transforms", "contact": "only"}, "contact: only is of source hi4d"),
        ({"contact": "some"}, "'any', 'only' or 'none'"),
        ({"fps": -1}, "greater than or equal to 0"),
        ({"frame_step": 0}, "greater than or equal to 1"),
        ({"source": "video"}, "'demo', 'hi4d', 'easyvolcap', 'transforms'"),
    ],
)
def test_entries_that_cannot_work_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        entry(**changes)


def test_alpha_lies_over_the_background(
    tmp_path: Path, raw_sequence: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = raw_sequence(tmp_path / "raw", frames=(21,))
    path = raw / "images" / "4" / "000021.png"
    levels = np.asarray(Image.open(path))
    clear = np.zeros(levels.shape[:2], np.uint8)
    clear[:, :48] = 255
    Image.fromarray(np.dstack([levels, clear])).save(path)
    for name, background in (("black", (0, 0, 0)), ("white", (1, 1, 1))):
        (tmp_path / name).mkdir()
        import_scene("pair_x", entry(), PrepareConfig(), raw, tmp_path / name, background)
        view = next(v for v in Scene.read(tmp_path / name).views() if v.name == "4")
        assert view.pixels()[:, 48:].mean() == background[0]
        np.testing.assert_array_equal(np.rint(255 * view.pixels()[:, :48]), levels[:, :48])
    output = "pair_x: 1 of 3 images have alpha; they are composited over train.background, "
    assert capsys.readouterr().err.splitlines() == [
        output + "[0.0, 0.0, 0.0]",
        output + "[1.0, 1.0, 1.0]",
    ]
