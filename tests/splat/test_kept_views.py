"""Films along kept views: the path goes through them, and what is refused."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from exact_scene import EST_FROM_TRUE, SCENE, SOURCES, TIMES, write_scene
from ruamel.yaml import YAML

from stages.commands import film
from stages.run.errors import UserError
from stages.scenes.cameras import Camera, rotation_angle_deg
from stages.scenes.poses.camera_paths import through_keys
from stages.splat.viewing.kept_views import read_path

ROOT = Path(__file__).resolve().parents[2]
KEYS = [EST_FROM_TRUE.apply_camera(one) for one in SOURCES.values()]


def key(camera: Camera, time: str) -> dict:
    """A kept view as the page saves it."""
    K, width, height = camera.K, camera.width, camera.height
    lens = [K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height]
    pose = camera.cam_from_world[:3].tolist()
    return {"time": time, "cam_from_world": pose, "aspect": width / height, "lens": lens}


def write_path(**changes: object) -> Path:
    times = TIMES[0], TIMES[0], TIMES[1]
    keys = [key(one, time) for one, time in zip(KEYS, times, strict=True)]
    path = Path("path.json")
    path.write_text(json.dumps({"scene": SCENE, "keys": keys} | changes))
    return path


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_path_goes_through_its_keys_and_is_smooth() -> None:
    path = through_keys(KEYS, 201)
    for at, k in ((0, 0), (100, 1), (200, 2)):
        np.testing.assert_allclose(path[at][0].centre, KEYS[k].centre, atol=1e-9)
        rotations = (one.cam_from_world[:3, :3] for one in (path[at][0], KEYS[k]))
        assert rotation_angle_deg(*rotations) < 1e-4
    centres = np.stack([camera.centre for camera, _ in path])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert steps.max() < 2 * steps.min()
    turns = np.diff(centres, n=2, axis=0)
    assert np.linalg.norm(turns, axis=1).max() < 0.05 * steps.mean(), "no corner at a key"
    assert [place for _, place in path][::100] == [0.0, 1.0, 2.0]


def test_one_key_stands_still_and_two_are_joined_by_a_line() -> None:
    still = through_keys(KEYS[:1], 3)
    for camera, place in still:
        np.testing.assert_allclose(camera.cam_from_world, KEYS[0].cam_from_world, atol=1e-9)
        assert place == 0
    middle = through_keys(KEYS[:2], 3)[1][0].centre
    np.testing.assert_allclose(middle, (KEYS[0].centre + KEYS[1].centre) / 2, atol=1e-9)


def test_file_gives_cameras_of_the_canvas_aspect_and_times_on_the_way() -> None:
    film_path = read_path(write_path(), SCENE, TIMES, 5, 32)
    assert [time for _, time in film_path] == [TIMES[0]] * 4 + [TIMES[1]]
    for camera, _ in film_path:
        assert (camera.width, camera.height) == (32, 32)
    expected = KEYS[0].resized(32, 32)
    np.testing.assert_allclose(film_path[0][0].K, expected.K)
    np.testing.assert_allclose(film_path[0][0].centre, expected.centre)


def changed(**values: object) -> Callable[[], Path]:
    return lambda: write_path(keys=[key(KEYS[0], TIMES[0]) | values])


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda: Path("gone.json"), "gone.json: no such file"),
        (lambda: write_path(keys=[]), "path.json: no kept views"),
        (lambda: write_path(keys=[3]), "path.json: no kept views"),
        (lambda: write_path(scene="other"), "path.json: a path of 'other'"),
        (changed(time="000099"), "keys.0: time '000099'"),
        (changed(aspect=0), "keys.0: aspect 0"),
        (changed(lens=[1, 1, 0.5]), "keys.0: not enough values"),
        (changed(lens=[-1, -1, 0.5, 0.5]), "keys.0: a focal length of"),
        (changed(cam_from_world=[[1, 0, 0, 0]]), "keys.0: shape (2, 4)"),
        (changed(cam_from_world=[[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]), "rotation matrix"),
    ],
)
def test_other_files_are_refused(write: Callable[[], Path], says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_path(write(), SCENE, TIMES, 5, 32)
    assert says in str(caught.value)
    assert "expected" in str(caught.value)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["film", SCENE, *arguments])
    film.main()


def test_command_renders_the_film(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scene()
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["study"]["methods"] = ["none"]
    yaml.dump(params, Path("params.yaml"))
    write_path()
    small = ["-S", "show.video.frames=4", "-S", "show.video.max_side_px=32"]
    run(monkeypatch, "path.json", "out/film.mp4", *small, "-S", "train.seed=3")
    output = capsys.readouterr().out
    assert "out/film.mp4: 4 frames of none" in output
    assert "train.seed has no effect" in output
    frames = imageio_ffmpeg.read_frames("out/film.mp4")
    assert next(frames)["size"] == (32, 32)
    assert len(list(frames)) == 4
    with pytest.raises(UserError, match=r"film\.mp4: exists already"):
        run(monkeypatch, "path.json", "out/film.mp4")
    with pytest.raises(UserError, match=r"film\.gif: no \.mp4"):
        run(monkeypatch, "path.json", "film.gif")
    with pytest.raises(UserError, match="--method: 'tuned-post'"):
        run(monkeypatch, "path.json", "other.mp4", "--method", "tuned-post")
