"""A prepared scene read from disk, and the errors of a broken one."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, look_at
from stages.scenes.images import write_mask, write_png
from stages.scenes.scene import Scene, camera_from_dict, camera_to_dict, write_scene
from stages.scenes.view import View

K = np.array([[90.0, 0, 11.5], [0, 91, 16.5], [0, 0, 1]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two frames of cameras a and b (source) and c (target); only a has masks."""
    views = []
    for index, (name, role) in enumerate((("b", "source"), ("a", "source"), ("c", "target"))):
        camera = Camera(name, K, look_at([index + 1, 2, 3], [0, 0, 0], [0, 1, 0]), 24, 32)
        for timestamp in ("000012", "000007"):
            here = tmp_path / "frames" / timestamp
            path = here / "images" / f"{name}.png"
            write_png(path, np.full((32, 24, 3), index / 3, np.float32))
            if name == "a":
                write_mask(here / "masks" / "a.png", np.eye(32, 24) > 0)
            views.append(View(camera, path, timestamp=timestamp, role=role))
    write_scene(tmp_path, {"name": "s", "group": "g"}, views)
    return tmp_path


def test_views_are_chosen_by_role_and_time(folder: Path) -> None:
    scene = Scene.read(folder)
    assert (scene.name, scene.group) == ("s", "g")
    assert scene.timestamps == ["000007", "000012"]
    assert len(scene.views()) == 6
    assert [view.name for view in scene.views("source", "000007")] == ["b", "a"]
    assert [(view.name, view.timestamp) for view in scene.views("target")] == [
        ("c", "000012"),
        ("c", "000007"),
    ]
    assert list(scene.cameras("source")) == ["b", "a"]
    assert list(scene.cameras("target")) == ["c"]


def test_view_has_its_image_mask_and_camera(folder: Path) -> None:
    views = {view.name: view for view in Scene.read(folder).views(timestamp="000012")}
    np.testing.assert_allclose(views["a"].pixels(), 1 / 3, atol=1e-6)
    np.testing.assert_array_equal(views["a"].mask(), np.eye(32, 24) > 0)
    assert views["b"].mask() is None
    np.testing.assert_allclose(views["c"].camera.centre, [3, 2, 3])


def test_cameras_survive_json() -> None:
    camera = Camera("a", K, look_at([1, 2, 3], [0.3, 0, 0], [0, 1, 0]), 24, 32)
    back = camera_from_dict("a", json.loads(json.dumps(camera_to_dict(camera))))
    np.testing.assert_allclose(back.cam_from_world, camera.cam_from_world, atol=1e-12)
    np.testing.assert_array_equal(back.K, K)
    assert (back.name, back.width, back.height) == ("a", 24, 32)


def drop_key(path: Path) -> None:
    info = json.loads(path.read_text())
    del info["cameras"]["a"]["K"]
    path.write_text(json.dumps(info))


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "scene.json").unlink(), "scene.json: no such file"),
        (lambda f: (f / "scene.json").write_text("{"), "not JSON"),
        (lambda f: (f / "scene.json").write_text("[]"), "JSON, but a list"),
        (lambda f: drop_key(f / "scene.json"), "no usable 'K'"),
        (lambda f: (f / "split.csv").unlink(), "split.csv: no such file"),
        (lambda f: (f / "split.csv").write_text(""), "image,camera,timestamp,role"),
        (lambda f: replace_text(f / "split.csv", "camera,timestamp", "cam,time"), "split.csv:1"),
        (lambda f: replace_text(f / "split.csv", ",target", ",test"), "role test"),
        (lambda f: replace_text(f / "split.csv", ",c,", ",d,"), "camera d"),
        (lambda f: replace_text(f / "split.csv", "b.png", "9" * 300), "leads out of the scene"),
        (lambda f: (f / "frames/000007/images/b.png").unlink(), "images/b.png: no such file"),
    ],
)
def test_broken_scene_is_named(folder: Path, spoil: Callable[[Path], object], says: str) -> None:
    spoil(folder)
    with pytest.raises(UserError) as caught:
        Scene.read(folder)
    assert says in str(caught.value)


@pytest.mark.parametrize("role", ["source", "target"])
def test_role_without_cameras_is_an_error(folder: Path, role: str) -> None:
    lines = (folder / "split.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.rstrip().endswith(f",{role}")]
    (folder / "split.csv").write_text("".join(kept))
    scene = Scene.read(folder)
    with pytest.raises(UserError, match=f"no {role} camera"):
        scene.cameras(role)


def test_image_of_another_size_is_refused(folder: Path) -> None:
    view = Scene.read(folder).views("target")[0]
    write_png(view.image_path, np.zeros((16, 12, 3), np.float32))
    with pytest.raises(UserError, match="12x16 px") as caught:
        view.pixels()
    assert "24x32 px" in str(caught.value)
    assert str(view.image_path) in str(caught.value)


def test_mask_of_another_size_is_refused(folder: Path) -> None:
    view = next(view for view in Scene.read(folder).views() if view.name == "a")
    write_mask(view.mask_path, np.ones((16, 12), bool))
    with pytest.raises(UserError, match="12x16 px") as caught:
        view.mask()
    assert str(view.mask_path) in str(caught.value)
