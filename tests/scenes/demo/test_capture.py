"""The embedded capture: both eyes show the same room, through the lenses that the model states."""

from pathlib import Path

import numpy as np
import pytest

from stages.run.files import folder_hash
from stages.scenes.colmap_lenses import read_posed
from stages.scenes.dataset import Dataset
from stages.scenes.demo.capture import undistorted, write_capture
from stages.scenes.demo.config import DemoCaptureConfig
from stages.scenes.images import read_image
from stages.scenes.lenses.distortion import distort
from stages.scenes.sources.name_filter import matching

CONFIG = DemoCaptureConfig(photographs=2, eval_photographs=1, width_px=96, height_px=72, samples=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("demo")
    write_capture(CONFIG, root / "room", root / "room_eval")
    return root / "room", root / "room_eval"


def test_points_have_the_colour_of_their_pixels(folders: tuple[Path, Path]) -> None:
    """Through the stated lens they do; through a pinhole, the left eye's lie elsewhere."""
    import pycolmap

    for folder in folders:
        model = read_posed(folder / "sparse" / "0")
        for image in model.images.values():
            lens, pose = image.lens, image.cam_from_world
            camera = pycolmap.Camera(
                model=lens.model, width=lens.width, height=lens.height, params=list(lens.params)
            )
            seen = model.points @ pose[:3, :3].T + pose[:3, 3]
            seen = seen[seen[:, 2] > 0.1]
            colors = model.colors[(model.points @ pose[2, :3] + pose[2, 3]) > 0.1] / 255
            pixels = camera.img_from_cam(seen)
            inside = ((pixels > 1) & (pixels < [lens.width - 1, lens.height - 1])).all(axis=1)
            x, y = pixels[inside].astype(int).T
            photograph = read_image(folder / "images" / image.name)
            assert np.median(np.abs(photograph[y, x] - colors[inside])) < 0.035


def test_left_eye_has_a_lens_and_the_right_none(folders: tuple[Path, Path]) -> None:
    views = Dataset.read(folders[0]).views
    lenses = {view.name: view.lens.model for view in views}
    assert lenses == {
        "LEFT/000.jpg": "OPENCV",
        "LEFT/001.jpg": "OPENCV",
        "RIGHT/000.jpg": "PINHOLE",
        "RIGHT/001.jpg": "PINHOLE",
    }
    assert [matching(name, "right") for name in lenses] == [False, False, True, True]
    left, right = (view.camera for view in (views[0], views[2]))
    assert np.linalg.norm(left.centre - right.centre) == pytest.approx(0.16)
    assert np.allclose(left.cam_from_world[:3, :3], right.cam_from_world[:3, :3])
    in_left = left.cam_from_world[:3, :3] @ (right.centre - left.centre)
    assert in_left[0] > 0.15, "the right eye stands to the right"


def test_equal_seeds_give_equal_bytes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    write_capture(CONFIG, tmp_path / "room", tmp_path / "room_eval")
    assert folder_hash(tmp_path / "room") == folder_hash(folders[0])
    assert folder_hash(tmp_path / "room_eval") == folder_hash(folders[1])


def test_undistorted_inverts_distortion() -> None:
    bends = np.array([*DemoCaptureConfig().distortion, 0.0])
    ideal = np.random.default_rng(0).uniform(-0.9, 0.9, (50, 2))
    assert np.allclose(undistorted(distort(ideal, bends), bends), ideal, atol=1e-9)
