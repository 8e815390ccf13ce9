"""A video as images of a capture: sharp frames at a rate, upright, and what is refused."""

import shutil
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import walls
from scipy.ndimage import gaussian_filter

from stages import capture_calibrate
from stages.run.errors import UserError
from stages.run.files import read_json
from stages.scenes.captures.inputs import as_images
from stages.scenes.captures.video_frames import extract_sharp_frames, video_of
from stages.scenes.dataset import Dataset
from stages.scenes.formats.video import read_video, write_video
from stages.scenes.images import read_image

ROOT = Path(__file__).resolve().parents[2]
FPS, GROUP = 12, 6  # frames per second, and per view of the corner


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Five views of a corner, 8-bit."""
    folder = tmp_path_factory.mktemp("walls")
    walls.write_photographs(folder, walls.cameras())
    return [np.rint(255 * read_image(path)).astype(np.uint8) for path in sorted(folder.iterdir())]


@pytest.fixture
def video(tmp_path: Path, views: list[np.ndarray]) -> Path:
    """Each view for half a second; of its six frames the fourth is sharp, the others blurred."""
    frames = [
        view if k == 3 else gaussian_filter(view, (2 + k, 2 + k, 0))
        for view in views
        for k in range(GROUP)
    ]
    write_video(tmp_path / "corner.mp4", frames, FPS)
    return tmp_path / "corner.mp4"


def test_the_sharpest_frame_of_each_interval_is_kept(
    video: Path, views: list[np.ndarray], tmp_path: Path
) -> None:
    assert extract_sharp_frames(video, tmp_path / "images", 2.0) == len(views)
    paths = sorted((tmp_path / "images").iterdir())
    expected = [f"frame_{GROUP * view + 3:06d}.png" for view in range(len(views))]
    assert [path.name for path in paths] == expected
    for path, view in zip(paths, views, strict=True):
        blurred = gaussian_filter(view.astype(float), (2, 2, 0))
        off = np.abs(255 * read_image(path) - view).mean()
        assert off < 0.7 * np.abs(blurred - view).mean(), "what the codec leaves"


@pytest.mark.parametrize(("rate", "count"), [(1.0, 3), (2.0, 5), (4.0, 10), (100.0, 30)])
def test_the_rate_is_in_images_per_second(
    video: Path, tmp_path: Path, rate: float, count: int
) -> None:
    assert extract_sharp_frames(video, tmp_path / "images", rate) == count


@pytest.mark.slow
def test_command_poses_the_frames_of_a_video(
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By itself, and as the one file of a capture's folder."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    lenses = ["-S", "capture_calibrate.lenses=one", "-S", "capture_calibrate.seed=1"]
    monkeypatch.setattr(sys, "argv", ["capture_calibrate", "corner.mp4", "posed", *lenses])
    capture_calibrate.main()
    output = capsys.readouterr().out
    assert "corner.mp4: 5 sharp frames, 2 a second" in output
    assert "posed: sfm, 5 of 5 images" in output
    assert "has no effect" not in output
    assert len(Dataset.read(Path("posed")).views) == 5
    raw = Path("data/raw/demo_room")
    raw.mkdir(parents=True)
    video.rename(raw / "IMG_0001.MP4")
    monkeypatch.setattr(sys, "argv", ["capture_calibrate", "--capture", "demo_room"])
    capture_calibrate.main()
    assert read_json(Path("metrics/captures/demo_room/calibrate.json"))["total"] == 5


def test_a_rotated_video_is_upright(video: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.mov"
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    words = ["-display_rotation", "90", "-i", str(video), "-c", "copy", str(turned)]
    subprocess.run([ffmpeg, "-loglevel", "error", *words], check=True)
    plain, frame = next(read_video(video).frames), next(read_video(turned).frames)
    assert frame.shape == (288, 216, 3)
    assert np.abs(np.rot90(plain).astype(int) - frame).mean() < 2


def test_images_are_taken_rather_than_a_video_beside_them(video: Path, tmp_path: Path) -> None:
    assert video_of(tmp_path) == video
    (tmp_path / "a.png").touch()
    assert video_of(tmp_path) is None
    with as_images(tmp_path, 2.0) as folder:
        assert folder == tmp_path
    assert video_of(tmp_path / "gone.mp4") is None


def test_a_rate_without_effect_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "room").mkdir()
    words = ["room", "posed", "-S", "capture_calibrate.video_fps=5"]
    monkeypatch.setattr(sys, "argv", ["capture_calibrate", *words])
    with pytest.raises(UserError):
        capture_calibrate.main()
    line = "posed: capture_calibrate.video_fps has no effect: the source is no video"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"no video at all", b"\0\0\0\x18ftypmp42" + bytes(4000)])
def test_what_cannot_be_decoded_is_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"broken\.mp4: (cannot be decoded|no video)") as caught:
        extract_sharp_frames(path, tmp_path / "images", 2.0)
    assert "ffmpeg -i VIDEO" in str(caught.value)


def test_a_cut_video_is_refused_or_reported(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An MP4 with its index in front can be cut; what is left is used, and said."""
    ffmpeg, whole, cut = imageio_ffmpeg.get_ffmpeg_exe(), tmp_path / "w.mp4", tmp_path / "c.mp4"
    words = ["-i", str(video), "-c", "copy", "-movflags", "faststart", str(whole)]
    subprocess.run([ffmpeg, "-loglevel", "error", *words], check=True)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(0.6 * len(data))])
    assert 2 <= extract_sharp_frames(cut, tmp_path / "images", 2.0) < 5
    assert "c.mp4: only " in capsys.readouterr().err


def test_one_image_is_too_few(video: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corner\.mp4: 1 image of 30 frames at 12 per second"):
        extract_sharp_frames(video, tmp_path / "images", 0.1)


def test_without_ffmpeg_the_way_out_is_named(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found. Install ffmpeg on your system")

    monkeypatch.setattr("imageio_ffmpeg._io.get_ffmpeg_exe", missing)
    with pytest.raises(UserError, match="ffmpeg: not found") as caught:
        read_video(video)
    assert "IMAGEIO_FFMPEG_EXE" in str(caught.value)
