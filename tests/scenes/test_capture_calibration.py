"""Photographs to COLMAP datasets: from nothing, from a model, from approximate poses."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import walls
from PIL import Image

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, rigid, rotation_from_vector
from stages.scenes.captures import colmap_mapping, model_judgement
from stages.scenes.captures.calibration import calibrate_capture
from stages.scenes.captures.colmap_mapping import map_capture
from stages.scenes.captures.config import CaptureCalibrateConfig
from stages.scenes.colmap import write_model
from stages.scenes.dataset import Dataset, find_photographs, same_images
from stages.scenes.frames import fit_sim3_from_cameras


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walls") / "corner"
    walls.write_photographs(folder, walls.cameras())
    return folder


@pytest.fixture(scope="module")
def mapped(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The corner and a blank image, by structure from motion in two attempts."""
    folder = tmp_path_factory.mktemp("mapped")
    shutil.copytree(images, folder / "corner")
    Image.fromarray(np.full((216, 288, 3), 90, np.uint8)).save(folder / "corner" / "blank.png")
    config = CaptureCalibrateConfig(attempts=2, lenses="one")
    metrics = calibrate_capture(folder / "corner", folder / "dataset", config)
    return folder / "dataset", metrics


def errors(estimated: dict[str, Camera]) -> tuple[float, float]:
    """Mean rotation error in degrees, and share of the cameras' spread, after a similarity."""
    truth = walls.cameras()
    names = [name for name in truth if name in estimated]
    _, residual = fit_sim3_from_cameras([estimated[n] for n in names], [truth[n] for n in names])
    return residual["rotation_mean_deg"], residual["centre_rmse_relative"]


def cameras_of(dataset: Path) -> dict[str, Camera]:
    return {view.name: view.camera for view in Dataset.read(dataset).views}


def test_images_without_a_model_become_a_dataset(mapped: tuple[Path, dict]) -> None:
    folder, metrics = mapped
    assert (metrics["method"], metrics["registered"], metrics["total"]) == ("sfm", 5, 6)
    turn_deg, place = errors(cameras_of(folder))
    assert turn_deg < 0.5
    assert place < 0.02
    assert 0 < metrics["reprojection_error_px"] < 1


def test_points_have_the_colours_of_the_images(mapped: tuple[Path, dict]) -> None:
    dataset, differences = Dataset.read(mapped[0]), []
    for view in dataset.views:
        image = np.asarray(Image.open(mapped[0] / "images" / view.name)).astype(int)
        row, column = view.camera.project(dataset.points)[0].T[::-1].astype(int)
        inside = (row >= 0) & (row < len(image)) & (column >= 0) & (column < image.shape[1])
        seen = image[row[inside], column[inside]]
        differences.append(np.abs(seen - dataset.colors[inside]).mean(1))
    assert np.median(np.concatenate(differences)) < 10


def test_model_that_verified_matches_contradict_is_not_taken(images: Path, tmp_path: Path) -> None:
    config = CaptureCalibrateConfig(attempts=1)
    names = sorted(path.name for path in images.iterdir())
    map_capture(images, images, names, tmp_path / "model", tmp_path, config)
    model = pycolmap.Reconstruction(tmp_path / "model")
    judgement = model_judgement.judge(model, tmp_path / "0.db")
    assert judgement.agreement is not None
    assert judgement.agreement > 0.95
    assert not judgement.fault
    assert not judgement.doubtful
    tilt = pycolmap.Rigid3d(np.hstack([rotation_from_vector([0.1, 0, 0.1]), np.zeros((3, 1))]))
    for number in model.reg_image_ids()[1::2]:
        frame = model.frames[model.images[number].frame_id]
        frame.rig_from_world = tilt * frame.rig_from_world
    share = model_judgement.agreement(model_judgement.verified_pairs(model, tmp_path / "0.db"))
    assert share is not None
    assert share < 0.7
    judgement = model_judgement.judge(model, tmp_path / "0.db")
    assert "2 of its 5 images do not fit" in judgement.fault
    assert "verified matches contradict its pose" in judgement.fault


def test_image_that_is_not_believed_is_left_out(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = model_judgement.judge

    def doubt(model: pycolmap.Reconstruction, database: Path) -> model_judgement.Judgement:
        number = model.find_image_with_name("02.png").image_id
        return replace(judge(model, database), doubtful={number: "a doubt"})

    monkeypatch.setattr(model_judgement, "judge", doubt)
    metrics = calibrate_capture(images, tmp_path / "out", CaptureCalibrateConfig(attempts=1))
    assert (metrics["registered"], metrics["total"]) == (4, 5)
    assert metrics["note"].startswith("without a pose: 02.png (")
    assert 0 < metrics["focal_deviation"] < 0.02
    assert Dataset.read(tmp_path / "out").without_pose == ("02.png",)


def test_images_of_equal_size_and_focal_length_share_a_lens(images: Path, tmp_path: Path) -> None:
    """PNGs have no focal length in EXIF; one JPEG says another than the rest."""
    shutil.copytree(images, tmp_path / "corner")
    for name in ("03", "04"):
        path = tmp_path / "corner" / f"{name}.png"
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = 32  # focal length in 35 mm film
        Image.open(path).save(path.with_suffix(".jpg"), quality=97, exif=exif)
        path.unlink()
    calibrate_capture(tmp_path / "corner", tmp_path / "out", CaptureCalibrateConfig())
    model = pycolmap.Reconstruction(tmp_path / "out" / "sparse" / "0")
    lenses: dict[int, set[str]] = {}
    for image in model.images.values():
        lenses.setdefault(image.camera_id, set()).add(image.name)
    assert sorted(map(sorted, lenses.values())) == [
        ["00.png", "01.png", "02.png"],
        ["03.jpg", "04.jpg"],
    ]


def test_what_is_missing_is_stated(mapped: tuple[Path, dict]) -> None:
    folder, metrics = mapped
    assert metrics["note"].split("; ")[0] == "without a pose: blank.png (no verified match)"
    assert Dataset.read(folder).without_pose == ("blank.png",)


def test_too_few_are_an_error_that_names_them(mapped: tuple[Path, dict], tmp_path: Path) -> None:
    folder, _ = mapped
    config = CaptureCalibrateConfig(min_registered=0.9)
    with pytest.raises(UserError) as caught:
        calibrate_capture(folder, tmp_path / "out", config)
    assert "5 of 6 images registered; without a pose: blank.png" in str(caught.value)
    assert "expected at least 90%" in str(caught.value)


def test_nothing_registered_is_an_error(tmp_path: Path) -> None:
    for k in range(3):
        path = tmp_path / "blank" / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 40 * k, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"blank: 0 of 3 images registered"):
        calibrate_capture(tmp_path / "blank", tmp_path / "out", CaptureCalibrateConfig(attempts=1))


def test_truncated_image_is_named_before_anything_is_estimated(
    images: Path, tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "corner")
    path = tmp_path / "corner" / "02.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"02\.png: not a whole image"):
        calibrate_capture(tmp_path / "corner", tmp_path / "out", CaptureCalibrateConfig())


def test_model_that_is_there_is_kept(mapped: tuple[Path, dict], tmp_path: Path) -> None:
    folder, _ = mapped
    metrics = calibrate_capture(folder, tmp_path / "out", CaptureCalibrateConfig())
    assert metrics["method"] == "given"
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        assert (tmp_path / "out/sparse/0" / name).read_bytes() == (
            folder / "sparse/0" / name
        ).read_bytes()
    assert same_images(folder, tmp_path / "out")
    (tmp_path / "out/images/00.png").write_bytes((folder / "images/01.png").read_bytes())
    assert not same_images(folder, tmp_path / "out")


def disturbed() -> dict[str, Camera]:
    """True cameras, turned by some tenths of a degree and moved by some centimetres."""
    rng = np.random.default_rng(5)
    estimated = {}
    for name, camera in walls.cameras().items():
        rotation = rotation_from_vector(np.radians(0.4) * rng.standard_normal(3))
        shift = rigid(rotation, 0.02 * rng.standard_normal(3))
        estimated[name] = camera.moved(shift @ camera.cam_from_world)
    return estimated


@pytest.mark.parametrize("method", ["ba", "vggt"])
def test_bundle_adjustment_refines_approximate_poses(
    method: str, images: Path, tmp_path: Path
) -> None:
    """From a model without points, and from what a network would predict."""
    source = tmp_path / "corner"
    shutil.copytree(images, source / "images")
    if method == "ba":
        write_model(source / "sparse", disturbed())
    config = CaptureCalibrateConfig(method=method, refine_lenses=False)
    calibrate_capture(source, tmp_path / "out", config, lambda images: disturbed())
    before, after = errors(disturbed()), errors(cameras_of(tmp_path / "out"))
    assert after[0] < 0.25 * before[0]
    assert after[1] < 0.5 * before[1]


def turn_a_camera_away(model: pycolmap.Reconstruction, *_: object) -> None:
    tilt = np.hstack([rotation_from_vector([0, 0, 0.01]), np.zeros((3, 1))])
    frame = model.frames[model.images[model.reg_image_ids()[1]].frame_id]
    frame.rig_from_world = pycolmap.Rigid3d(tilt) * frame.rig_from_world


def bend_the_lenses(model: pycolmap.Reconstruction, *_: object) -> None:
    """To a distortion that does not reach most of the image."""
    for camera in model.cameras.values():
        (focal, *centre), size = camera.params[:3], (camera.width, camera.height)
        bent = pycolmap.Camera(
            model="SIMPLE_RADIAL", width=size[0], height=size[1], params=[focal, *centre, -20.0]
        )
        camera.model, camera.params = bent.model, bent.params


@pytest.mark.parametrize("spoil", [turn_a_camera_away, bend_the_lenses])
def test_start_is_kept_where_adjustment_fits_other_matches_worse(
    spoil: Callable[..., None], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "corner"
    shutil.copytree(images, source / "images")
    write_model(source / "sparse", walls.cameras())
    monkeypatch.setattr(colmap_mapping, "_adjust", spoil)
    metrics = calibrate_capture(source, tmp_path / "out", CaptureCalibrateConfig(method="ba"))
    assert "poses not refined: matches that took no part in it fit worse" in metrics["note"]
    turn_deg, place = errors(cameras_of(tmp_path / "out"))
    assert (turn_deg, place) == (pytest.approx(0, abs=1e-3), pytest.approx(0, abs=1e-4))


def test_given_model_that_misses_its_own_points_is_noted(
    mapped: tuple[Path, dict], tmp_path: Path
) -> None:
    folder, _ = mapped
    shutil.copytree(folder, tmp_path / "moved")
    model = pycolmap.Reconstruction(tmp_path / "moved/sparse/0")
    tilt = pycolmap.Rigid3d(np.hstack([rotation_from_vector([0, 0.1, 0]), np.zeros((3, 1))]))
    for number in model.reg_image_ids()[:2]:
        frame = model.frames[model.images[number].frame_id]
        frame.rig_from_world = tilt * frame.rig_from_world
    model.write_binary(str(tmp_path / "moved/sparse/0"))
    metrics = calibrate_capture(tmp_path / "moved", tmp_path / "out", CaptureCalibrateConfig())
    assert "the model's own points miss their pixels by" in metrics["note"]
    assert metrics["reprojection_error_px"] > 4


def test_lenses_are_told_apart_by_size_and_focal_length(tmp_path: Path) -> None:
    """A phone without EXIF has one, or one for each of its two orientations; each zoom has one."""
    for name, size, mm in (
        ("a.jpg", (36, 64), None),
        ("b.jpg", (36, 64), None),
        ("wide.jpg", (64, 36), None),
        ("zoom1.jpg", (36, 64), 26),
        ("zoom2.jpg", (36, 64), 52),
        ("zoom3.jpg", (36, 64), 52),
    ):
        exif = Image.Exif()
        if mm:
            exif.get_ifd(0x8769)[0xA405] = mm
        Image.new("RGB", size).save(tmp_path / name, exif=exif)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert colmap_mapping._by_lens(tmp_path, names) == [
        ["a.jpg", "b.jpg"],
        ["wide.jpg"],
        ["zoom1.jpg"],
        ["zoom2.jpg", "zoom3.jpg"],
    ]


@pytest.mark.parametrize("method", ["given", "ba"])
def test_methods_that_need_a_model_say_so(method: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder sparse"):
        calibrate_capture(images, tmp_path / "out", CaptureCalibrateConfig(method=method))


def test_empty_folder_has_no_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image in it"):
        find_photographs(tmp_path)


@pytest.mark.slow
def test_real_images_register(tmp_path: Path) -> None:
    """Eleven images of a facade, at half their size."""
    assets = os.environ.get("SPLATFIX_TEST_ASSETS")
    if not assets:
        pytest.skip("SPLATFIX_TEST_ASSETS is unset: the real images are not here")
    config = CaptureCalibrateConfig(max_image_px=354)
    metrics = calibrate_capture(Path(assets, "data/sceaux_castle"), tmp_path / "out", config)
    assert (metrics["registered"], metrics["total"]) == (11, 11)
    assert metrics["reprojection_error_px"] < 1
    dataset = Dataset.read(tmp_path / "out")
    assert len(dataset.views) == 11
    assert len(dataset.points) > 500


def test_model_whose_points_disagree_on_the_poses_is_not_taken(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colmap_mapping, "_MAX_SPREAD_DEG", 1e-4)
    with pytest.raises(UserError, match=r"poses by one half of its points are 0\.\d+ degrees and"):
        calibrate_capture(images, tmp_path / "out", CaptureCalibrateConfig(attempts=1))


def test_halves_of_few_and_noisy_points_disagree_more(mapped: tuple[Path, dict]) -> None:
    model = pycolmap.Reconstruction(mapped[0] / "sparse" / "0")
    angle_deg, share = colmap_mapping._spread(model, CaptureCalibrateConfig())
    assert angle_deg < 0.4
    assert share < 0.03
    random = np.random.default_rng(0)
    for number in sorted(model.points3D)[30:]:
        model.delete_point3D(number)
    for image in model.images.values():
        for point in image.points2D:
            point.xy = point.xy + random.normal(0, 1.5, 2)
    noisy_deg, noisy_share = colmap_mapping._spread(model, CaptureCalibrateConfig())
    assert noisy_deg > 3 * angle_deg
    assert noisy_share > 3 * share
