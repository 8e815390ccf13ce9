"""One view type: a prepared scene and a COLMAP dataset read their images and masks through it."""

from pathlib import Path

import numpy as np
import pytest
from small_capture import write_capture

from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.scenes.dataset import Dataset
from stages.scenes.images import write_mask
from stages.scenes.scene import Scene, write_scene
from stages.scenes.view import View


@pytest.fixture
def both(tmp_path: Path) -> tuple[View, View]:
    """The same image as a view of a scene, and as one of a dataset."""
    frame = tmp_path / "frames" / "000021"
    of_dataset = Dataset.read(write_capture(frame)).views[0]
    stored = View(of_dataset.camera, of_dataset.image_path, timestamp="000021", role="source")
    write_scene(tmp_path, {"name": "s", "group": "g"}, [stored])
    (of_scene,) = Scene.read(tmp_path).views()
    return of_scene, of_dataset


def test_scene_and_dataset_read_the_same_image(both: tuple[View, View]) -> None:
    (image, valid), (other, other_valid) = (view.image() for view in both)
    np.testing.assert_array_equal(image, other)
    assert valid is None
    assert other_valid is None
    for view in both:
        np.testing.assert_array_equal(view.pixels(), image)
        np.testing.assert_array_equal(view.valid_pixels(), image)
        assert view.mask() is None
        assert view.sha256 == file_hash(view.image_path)


def test_valid_pixels_of_a_scene_come_with_the_image(both: tuple[View, View]) -> None:
    view, _ = both
    valid = np.ones((view.camera.height, view.camera.width), bool)
    valid[:10] = False
    write_mask(view.valid_path, valid)
    image, read = view.image()
    np.testing.assert_array_equal(read, valid)
    np.testing.assert_array_equal(view.valid(), valid)
    np.testing.assert_array_equal(view.valid_pixels()[0], image[10:].reshape(-1, 3))


def test_mask_of_another_size_is_refused_by_a_scene_alone(both: tuple[View, View]) -> None:
    of_scene, of_dataset = both
    half = np.ones((of_scene.camera.height // 2, of_scene.camera.width // 2), bool)
    path = of_scene.image_path.parent.parent / "masks" / "a.png"
    write_mask(path, half)
    shape = (of_scene.camera.height, of_scene.camera.width)
    assert View(of_dataset.camera, path, path, lens=of_dataset.lens).mask().shape == shape
    with pytest.raises(UserError, match=r"as scene\.json says"):
        View(of_scene.camera, path, path).mask()
