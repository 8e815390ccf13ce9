"""Nerfstudio's dataset as a capture: COLMAP reads the cameras that it states."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import walls

from stages import capture_calibrate
from stages.run.errors import UserError
from stages.scenes.captures.transforms_dataset import has_transforms, write_dataset
from stages.scenes.dataset import Dataset
from stages.scenes.images import write_mask

ROOT = Path(__file__).resolve().parents[2]
LENS = {"k1": -0.05, "k2": 0.01, "p1": 0.001, "p2": -0.002}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images of a corner with exact poses, intrinsics at the top, as exporters have it."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    placed = walls.cameras()
    walls.write_photographs(tmp_path / "corner/images", placed)
    frames = []
    for name, camera in placed.items():
        right, down, forward = camera.cam_from_world[:3, :3]
        matrix = np.eye(4)
        matrix[:3] = np.column_stack([right, -down, -forward, camera.centre])
        frames.append({"file_path": f"images/{name}", "transform_matrix": matrix.tolist()})
    write(frames=frames)
    return tmp_path / "corner"


def write(**changes: object) -> None:
    """Write transforms.json, or change values of it."""
    path, (width, height) = Path("corner/transforms.json"), walls.SIZE
    top = {"w": width, "h": height, "fl_x": walls.FOCAL_PX, "fl_y": walls.FOCAL_PX}
    top |= {"cx": width / 2, "cy": height / 2, "camera_model": "OPENCV"}
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else top) | changes))


def model(root: Path) -> pycolmap.Reconstruction:
    return pycolmap.Reconstruction(root / "sparse" / "0")


def test_poses_lenses_and_masks_are_those_that_are_stated(source: Path) -> None:
    values = json.loads((source / "transforms.json").read_text())
    for frame in values["frames"][:2]:
        name = Path(frame["file_path"]).stem
        write_mask(source / "masks" / f"{name}.png", np.ones(walls.SIZE[::-1], bool))
        frame["mask_path"] = f"masks/{name}.png"
    write(frames=values["frames"], **LENS)
    assert write_dataset(source, Path("made")) == 5
    read = model(Path("made"))
    assert len(read.cameras) == 1
    (camera,) = read.cameras.values()
    assert camera.model.name == "OPENCV"
    width, height = walls.SIZE
    focal = [walls.FOCAL_PX] * 2
    np.testing.assert_allclose(camera.params, [*focal, width / 2, height / 2, *LENS.values()])
    for image in read.images.values():
        truth = walls.cameras()[image.name]
        np.testing.assert_allclose(image.projection_center(), truth.centre, atol=1e-6)
        pose = image.cam_from_world().matrix()
        np.testing.assert_allclose(pose, truth.cam_from_world[:3], atol=1e-6)
        made, given = (root / "images" / image.name for root in (Path("made"), source))
        assert made.read_bytes() == given.read_bytes()
    views = {view.name: view for view in Dataset.read(Path("made")).views}
    assert sorted(name for name, view in views.items() if view.mask_path) == ["00.png", "01.png"]


@pytest.mark.parametrize(
    ("changes", "expected", "bends"),
    [
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.02}, "OPENCV_FISHEYE", (0.1, 0.02)),
        ({"k1": 0.1, "k3": 0.02}, "FULL_OPENCV", (0.1, 0.02)),
        ({}, "OPENCV", ()),
    ],
)
def test_lens_models(source: Path, changes: dict, expected: str, bends: tuple) -> None:
    write(**changes)
    write_dataset(source, Path("made"))
    (camera,) = model(Path("made")).cameras.values()
    assert camera.model.name == expected
    assert [number for number in camera.params[4:] if number] == list(bends)


@pytest.mark.slow
def test_command_adjusts_the_poses_or_takes_them(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for target, words, says in (
        ("adjusted", (), "adjusted: ba, 5 of 5 images"),
        ("taken", ("-S", "capture_calibrate.method=given"), "taken: given, 5 of 5 images, 0 "),
    ):
        monkeypatch.setattr(sys, "argv", ["capture_calibrate", "corner", target, *words])
        capture_calibrate.main()
        output = capsys.readouterr().out
        assert "corner: 5 images with poses from transforms.json" in output
        assert says in output
        read = model(Path(target))
        centres = np.stack([image.projection_center() for image in read.images.values()])
        truth = [walls.cameras()[image.name].centre for image in read.images.values()]
        atol = 1e-6 if target == "taken" else 0.02
        np.testing.assert_allclose(centres, truth, atol=atol)
    assert len(model(Path("adjusted")).points3D) > 100


def test_colmap_dataset_goes_first(source: Path) -> None:
    assert has_transforms(source)
    write_dataset(source, Path("made"))
    shutil.copytree("made/sparse", source / "sparse")
    assert not has_transforms(source)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": []}, "transforms.json: no frames"),
        ({"camera_model": "EQUIRECTANGULAR"}, "frames.0  00.png: camera_model EQUIRECTANGULAR"),
        ({"fl_x": "wide"}, "frames.0  00.png: fl_x: 'wide'"),
        ({"w": 100}, "100x216"),
    ],
)
def test_faults_are_named(
    source: Path, changes: dict, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(**changes)
    monkeypatch.setattr(sys, "argv", ["capture_calibrate", "corner", "posed"])
    with pytest.raises(UserError) as caught:
        capture_calibrate.main()
    assert says in str(caught.value)
    assert not Path("posed").exists()


def test_one_image_twice_is_refused(source: Path) -> None:
    values = json.loads((source / "transforms.json").read_text())
    write(frames=[*values["frames"], values["frames"][0]])
    with pytest.raises(UserError, match=r"transforms\.json: two frames of one image"):
        write_dataset(source, Path("made"))
