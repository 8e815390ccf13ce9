"""Colour per camera: the mean of maps is the identity, and neighbours lend theirs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scene import known_gaussians, ring

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, rotation_from_vector
from stages.scenes.frames import Sim3
from stages.splat import color
from stages.splat.gaussians import COLOR, Gaussians
from stages.splat.render import align_camera, render

FRAME = Sim3(2.5, rotation_from_vector([0.3, -0.8, 0.1]), np.array([5.0, 0.0, -2.0]))


def camera_at(x: float) -> Camera:
    pose = np.eye(4)
    pose[0, 3] = -x
    return Camera(f"at{x:g}", np.diag([50.0, 50.0, 1.0]), pose, 32, 24)


def table() -> color.ColorTable:
    maps = color.identity(3, "cpu")
    maps[:, 0, 0] = torch.tensor([0.8, 1.0, 1.2])
    return color.table([camera_at(x) for x in (0.0, 1.0, 3.0)], maps)


def red_gain(x: float) -> float:
    return float(color.map_at(table(), camera_at(x))[0, 0])


def colored(gaussians: Gaussians, colors: color.ColorTable) -> Gaussians:
    return replace(gaussians, metadata={COLOR: colors})


def test_the_mean_of_balanced_offsets_is_zero() -> None:
    offsets = color.balanced(torch.rand(4, 3, 4))
    torch.testing.assert_close(offsets.mean(0), torch.zeros(3, 4))


def test_a_training_camera_has_its_own_map() -> None:
    assert [red_gain(x) for x in (0.0, 1.0, 3.0)] == pytest.approx([0.8, 1.0, 1.2])


def test_a_target_camera_has_the_mean_of_its_two_nearest_by_inverse_distance() -> None:
    # Of distances 0.8 and 1.2, between maps 1.0 and 1.2 at 1 and 3.
    assert red_gain(1.8) == pytest.approx(1.0 * 0.6 + 1.2 * 0.4)
    assert red_gain(0.5) == pytest.approx(0.9)


def test_one_place_of_several_training_cameras_has_their_mean() -> None:
    maps = color.identity(2, "cpu")
    maps[1, 2, 3] = 0.5
    for x in (1.0, 7.0):
        found = color.map_at(color.table([camera_at(1.0)] * 2, maps), camera_at(x))
        assert found[2].tolist() == [0, 0, 1, 0.25]


def facing(name: str, angle: float, x: float = 0.0) -> Camera:
    """A camera at (x, 0, 0) that is rotated by so many radians about the vertical axis."""
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_vector([0, angle, 0])
    pose[:3, 3] = -pose[:3, :3] @ [x, 0, 0]
    return Camera(name, np.diag([50.0, 50.0, 1.0]), pose, 32, 24)


def reds(cameras: list[Camera], gains: list[float]) -> color.ColorTable:
    maps = color.identity(len(gains), "cpu")
    maps[:, 0, 0] = torch.tensor(gains)
    return color.table(cameras, maps)


def test_exposures_of_one_pose_keep_their_own_maps() -> None:
    names = ("dark", "mean", "light")
    cameras = [facing(name, 0.3, x) for x in (0.0, 2.0) for name in names]
    cameras = [replace(one, name=f"{one.name}{nth // 3}") for nth, one in enumerate(cameras)]
    gains = [0.5, 0.9, 1.9, 0.4, 1.0, 1.3]
    colors = reds(cameras, gains)
    for frame in (Sim3.identity(), FRAME):
        there = color.moved(colors, frame)
        found = [color.map_at(there, frame.apply_camera(one))[0, 0] for one in cameras]
        assert found == pytest.approx(gains)
        between = frame.apply_camera(facing("target", 0.1, 0.5))
        assert color.map_at(there, between)[0, 0] == pytest.approx(1.1 * 0.75 + 0.9 * 0.25)
        same_place = frame.apply_camera(facing("target", 0.3))
        assert color.map_at(there, same_place)[0, 0] == pytest.approx(1.1)


def test_cameras_of_a_panorama_lend_by_direction() -> None:
    angles, gains = [0.0, 0.4, 0.8, 2.0], [0.7, 0.9, 1.1, 1.3]
    cameras = [facing(f"at{angle}", angle) for angle in angles]
    colors = reds(cameras, gains)
    for frame in (Sim3.identity(), FRAME):
        there = color.moved(colors, frame)
        found = [color.map_at(there, frame.apply_camera(one))[0, 0] for one in cameras]
        assert found == pytest.approx(gains)
        for angle, gain in ((0.6, 1.0), (0.4, 0.9)):
            target = frame.apply_camera(facing("target", angle))
            assert color.map_at(there, target)[0, 0] == pytest.approx(gain)


def test_a_training_camera_is_known_by_its_name_at_another_pose() -> None:
    cameras = [facing("a", 0.0), facing("b", 0.0, 1.0)]
    colors = reds(cameras, [0.8, 1.2])
    moved = facing("b", 0.1, 0.2)
    assert color.map_of(colors, moved)[0, 0] == pytest.approx(1.2)
    assert color.map_at(colors, moved)[0, 0] == pytest.approx(0.88), "of another scene, maybe"
    assert color.map_of(colors, facing("c", 0.0, 0.2))[0, 0] == pytest.approx(0.88)


def test_a_table_of_centres_alone_lends_the_mean_of_a_place() -> None:
    colors = reds([facing("a", 0.0), facing("b", 1.0), facing("c", 2.0)], [0.8, 1.0, 1.5])
    old = {key: colors[key] for key in ("centres", "maps")}
    color.check(old)
    for name in "abc":
        assert color.map_at(old, facing(name, 0.0))[0, 0] == pytest.approx(1.1)


def test_an_affine_map_mixes_channels_and_adds_an_offset() -> None:
    own = torch.tensor([[1.0, 0, 0, 0.1], [0, 2, 0, 0], [1, 0, 1, 0]])
    image = color.applied(torch.tensor([[[0.1, 0.2, 0.3]]]), own)
    torch.testing.assert_close(image, torch.tensor([[[0.2, 0.4, 0.4]]]))


def test_a_render_is_in_the_colours_of_its_camera() -> None:
    cameras, maps = ring(3), color.identity(3, "cpu")
    maps[2, 1] = torch.tensor([0.1, 0.5, 0.0, 0.02])
    plain = known_gaussians()
    tinted = colored(plain, color.table(cameras, maps))
    before, after = (render(one, cameras[2], "cpu").rgb for one in (plain, tinted))
    torch.testing.assert_close(after[..., [0, 2]], before[..., [0, 2]])
    expected = 0.1 * before[..., 0] + 0.5 * before[..., 1] + 0.02
    inside = (before < 1).all(-1)  # renders are clipped after the map
    torch.testing.assert_close(after[..., 1][inside], expected[inside])
    assert torch.equal(render(tinted, cameras[0], "cpu").rgb, render(plain, cameras[0], "cpu").rgb)


def test_colours_move_with_the_world() -> None:
    cameras, maps = ring(3), color.identity(3, "cpu")
    maps[:, 0, 0] = torch.tensor([0.5, 1.0, 1.5])
    tinted = colored(known_gaussians(), color.table(cameras, maps))
    there = tinted.moved(FRAME)
    for camera in (*cameras, *ring(5)):
        here = render(tinted, camera, "cpu").rgb
        assert torch.allclose(here, render(there, FRAME.apply_camera(camera), "cpu").rgb, atol=1e-4)


def test_poses_are_aligned_in_the_colours_of_the_camera() -> None:
    cameras, maps = ring(2), color.identity(2, "cpu")
    maps[0] *= 0.5
    tinted = colored(known_gaussians(), color.table(cameras, maps))
    image = render(tinted, cameras[0], "cpu").rgb
    aligned = align_camera(tinted, cameras[0], image, "cpu", steps=5, lr=1e-3)
    assert np.allclose(aligned.cam_from_world, cameras[0].cam_from_world, atol=1e-6)


@pytest.mark.parametrize(
    "colors",
    [
        {"centres": [[0, 0, 0]], "maps": []},
        {"centres": [[0, 0]], "maps": [np.eye(3, 4).tolist()]},
        {"centres": [[0, 0, 0]], "maps": [np.eye(3).tolist()]},
        {"centres": [[0, 0, float("nan")]], "maps": [np.eye(3, 4).tolist()]},
        {"maps": [np.eye(3, 4).tolist()]},
        {"centres": [[0, 0, 0]], "maps": [np.eye(3, 4).tolist()], "names": []},
        {"centres": [[0, 0, 0]], "maps": [np.eye(3, 4).tolist()], "directions": [[0, 1]]},
        ["red"],
    ],
)
def test_a_file_whose_colours_are_none_is_refused(colors: object, tmp_path: Path) -> None:
    path = tmp_path / "gaussians.safetensors"
    replace(known_gaussians(), metadata={COLOR: colors}).save(path)
    with pytest.raises(UserError, match=path.name):
        Gaussians.load(path)


def test_a_file_keeps_colours(tmp_path: Path) -> None:
    path = tmp_path / "gaussians.safetensors"
    colored(known_gaussians(), table()).save(path)
    assert Gaussians.load(path).colors == table()
    known_gaussians().save(path)
    assert Gaussians.load(path).colors is None
