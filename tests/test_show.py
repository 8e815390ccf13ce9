"""Stage `show`: the same bytes each time, films that play, models that stand upright."""

import sys
from pathlib import Path

import exact_scene
import imageio_ffmpeg
import numpy as np
import pytest
import torch
import trimesh
from exact_scene import SCENE, SIZE, SOURCES, TARGETS, TIMES, folders, gaussians, write_scene
from ruamel.yaml import YAML

from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import folder_hash
from stages.scenes.frames import Sim3
from stages.scenes.images import write_png
from stages.scenes.novel_views import novel_view_path
from stages.scenes.poses.camera_paths import focus_and_up
from stages.scenes.scene import Scene
from stages.show import main
from stages.splat.ply import open_ply
from stages.splat.viewing.models import SceneModels

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(sys, "argv", ["show", "--scene", SCENE])
    write_scene()


def write_params(methods: list[str], frames: int, exports: list[str]) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["study"]["methods"] = methods
    params["show"]["video"]["frames"] = frames
    params["show"]["exports"] = exports
    yaml.dump(params, Path("params.yaml"))


def written() -> set[str]:
    """Names of the files that the stage wrote."""
    return {path.name for path in layout.shown(SCENE).iterdir()}


def test_same_gaussians_give_the_same_bytes() -> None:
    write_params(["none"], 3, ["ply", "spz"])
    main()
    first = folder_hash(layout.shown(SCENE))
    main()
    assert folder_hash(layout.shown(SCENE)) == first
    models = {f"none_{time}.{kind}" for time in TIMES for kind in ("ply", "spz")}
    assert written() == {"viewer.html", "orbit_none.mp4", *models}


def test_film_shows_all_methods_side_by_side() -> None:
    for time in TIMES:
        folder = layout.novel_views(SCENE, "base-distill") / "gaussians"
        gaussians(time).save(folder / f"{time}.safetensors")
    write_params(["none", "base-post", "base-distill"], 4, [])
    main()
    films = {"orbit_none.mp4": 1, "orbit_base-distill.mp4": 1, "side_by_side.mp4": 2}
    assert written() == {"viewer.html", *films}
    for name, wide in films.items():
        frames = imageio_ffmpeg.read_frames(str(layout.shown(SCENE) / name))
        info = next(frames)
        images = [np.frombuffer(frame, np.uint8) for frame in frames]
        assert info["size"] == (wide * SIZE, SIZE)
        assert len(images) == 4
        assert images[0].std() > 10
        assert np.abs(images[0].astype(int) - images[2]).mean() > 1, "the camera moves"


def test_exported_models_stand_upright_in_metres_around_the_origin() -> None:
    write_params(["none"], 0, ["ply"])
    main()
    path = layout.shown(SCENE) / f"none_{TIMES[0]}.ply"
    read = open_ply(path).gaussians
    true_means = gaussians(TIMES[0]).means.numpy()
    focus, up = focus_and_up(list(SOURCES.values()))
    heights = (true_means - focus) @ up
    # Viewers of PLY take -y for up.
    assert np.allclose(-read.means[:, 1].numpy(), heights, atol=1e-3)
    distances = np.linalg.norm(true_means - focus, axis=1)
    assert np.allclose(np.linalg.norm(read.means.numpy(), axis=1), distances, atol=1e-3)


@pytest.mark.parametrize(("unit", "offset"), [(2.0, 5.2e6), (1e-7, 0.0)])
def test_world_in_map_coordinates_is_shown_as_one_at_the_origin(
    monkeypatch: pytest.MonkeyPatch, unit: float, offset: float
) -> None:
    """Films, cameras beside the Gaussians, and exported models."""
    near = SceneModels.read(folders(("none",)), TIMES)
    near.export(Path(), ["ply"])
    before = open_ply(Path(f"none_{TIMES[0]}.ply")).gaussians.means
    frame = Sim3(unit, exact_scene.EST_FROM_TRUE.rotation, offset * np.array([0.1, -0.3, 1]))
    monkeypatch.setattr(exact_scene, "EST_FROM_TRUE", frame)
    write_scene()
    far = SceneModels.read(folders(("none",)), TIMES)
    films = [m.films(m.orbit(2), SIZE, "cpu")["orbit_none"] for m in (near, far)]
    for one, other in zip(*films, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 1
    far.export(Path(), ["ply"])
    assert np.allclose(open_ply(Path(f"none_{TIMES[0]}.ply")).gaussians.means, before, atol=1e-3)
    means = far.gaussians["none", TIMES[0]].world_from_norm.apply(np.zeros(3))
    assert np.linalg.norm(means) < 10


def test_film_that_cannot_be_encoded_leaves_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    write_params(["none"], 2, [])
    main()
    assert "no video" in capsys.readouterr().err
    assert written() == {"viewer.html"}


def test_sequence_of_plys_is_numbered_from_1_for_each_method() -> None:
    """SuperSplat plays the files of a folder by the numbers in their names; trimesh reads them."""
    for time in TIMES:
        folder = layout.novel_views(SCENE, "base-distill") / "gaussians"
        gaussians(time).save(folder / f"{time}.safetensors")
    write_params(["none", "base-distill"], 0, ["ply", "ply_sequence"])
    main()
    sequence = layout.shown(SCENE) / "ply_sequence"
    names = [f"frame{number:04d}.ply" for number in (1, 2)]
    for method in ("none", "base-distill"):
        assert sorted(path.name for path in (sequence / method).iterdir()) == names
    for name, time in zip(names, TIMES, strict=True):
        path = sequence / "none" / name
        assert path.read_bytes() == (layout.shown(SCENE) / f"none_{time}.ply").read_bytes()
        points = trimesh.load(path)
        ours = open_ply(path).gaussians
        np.testing.assert_array_equal(points.vertices, ours.means.numpy())
        raw = points.metadata["_ply_raw"]["vertex"]["data"]
        for name, values in (
            ("scale", ours.log_scales),
            ("rot", ours.quats),
            ("f_dc", ours.sh0[:, 0]),
        ):
            columns = [raw[f"{name}_{k}"] for k in range(values.shape[1])]
            np.testing.assert_array_equal(np.stack(columns, axis=1), values.numpy())
        np.testing.assert_array_equal(raw["opacity"], ours.opacity_logits.numpy())
        # Of the exact scene, not of our own reader.
        truth = gaussians(time)
        assert len(points.vertices) == len(truth)
        np.testing.assert_allclose(raw["opacity"], truth.opacity_logits.numpy(), atol=1e-6)


def test_recording_has_everything_over_time() -> None:
    """Read by Rerun's own reader."""
    rerun_chunk = pytest.importorskip("rerun.chunk")
    views = Scene.read(layout.scene(SCENE)).views("target")
    for view in views:
        path = novel_view_path(layout.novel_views(SCENE, "none"), "given", view)
        write_png(path, 0.5 * view.pixels())
    write_params(["none"], 0, ["ply", "rrd"])
    main()
    reader = rerun_chunk.RrdReader(layout.shown(SCENE) / f"{SCENE}.rrd")
    assert [entry.recording_id for entry in reader.recordings()] == [SCENE]
    columns: dict[str, list] = {}
    for chunk in reader.stream().to_chunks():
        table = chunk.to_record_batch()
        for name in set(table.schema.names) - {"RecordingInfo:start_time"}:
            columns[f"{chunk.entity_path} {name}"] = table[name].to_pylist()
    frames = [int(time) for time in TIMES]
    for name in (*SOURCES, *TARGETS):
        role = "source" if name in SOURCES else "target"
        entity = f"/world/cameras/{role}/{name}"
        assert columns[f"{entity} frame"] == frames
        path = layout.scene(SCENE) / "frames" / TIMES[1] / "images" / f"{name}.png"
        assert bytes(columns[f"{entity} EncodedImage:blob"][1][0]) == path.read_bytes()
    for name in TARGETS:
        path = layout.novel_views(SCENE, "none") / "given" / TIMES[0] / f"{name}.png"
        blob = columns[f"/renders/none/{name} EncodedImage:blob"][0][0]
        assert bytes(blob) == path.read_bytes()

    splats = "/world/splats/none"
    assert columns[f"{splats} frame"] == frames
    for index, time in enumerate(TIMES):
        ours = open_ply(layout.shown(SCENE) / f"none_{time}.ply").gaussians
        centers = np.array(columns[f"{splats} GaussianSplats3D:centers"][index])
        np.testing.assert_allclose(centers, ours.means.numpy(), atol=1e-5)
        scales = np.array(columns[f"{splats} GaussianSplats3D:scales"][index])
        np.testing.assert_allclose(scales, ours.log_scales.exp().numpy(), rtol=1e-4)
        quats = np.array(columns[f"{splats} GaussianSplats3D:quaternions"][index])
        unit = torch.nn.functional.normalize(ours.quats, dim=1).numpy()
        np.testing.assert_allclose(quats, unit[:, [1, 2, 3, 0]], atol=1e-5)
        colors = np.array(columns[f"{splats} GaussianSplats3D:colors"][index], np.uint32)
        alpha = 255 * torch.sigmoid(ours.opacity_logits).numpy()
        assert np.abs((colors & 255) - alpha).max() < 1

    # A camera sees its own photograph: its pose and lens are in the frame of the splats.
    camera = "/world/cameras/source/16"
    K = np.array(columns[f"{camera} Pinhole:image_from_camera"][0][0]).reshape(3, 3).T
    turn = np.array(columns[f"{camera} Transform3D:mat3x3"][0][0]).reshape(3, 3).T
    centre = np.array(columns[f"{camera} Transform3D:translation"][0][0])
    centers = np.array(columns[f"{splats} GaussianSplats3D:centers"][0])
    pixels = (centers - centre) @ turn @ K.T
    expected, _ = SOURCES["16"].project(gaussians(TIMES[0]).means.double().numpy())
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], expected, atol=0.05)


def test_recording_without_its_package_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    write_params(["none"], 0, ["rrd"])
    with pytest.raises(UserError, match=r"show\.exports: rrd needs a package") as caught:
        main()
    assert "uv pip install 'rerun-sdk>=0.41'" in str(caught.value)
    assert not layout.shown(SCENE).exists()
