"""COLMAP models there and back, and pycolmap's own reading of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from pose_scene import cloud, project, ring

from stages.run.errors import UserError
from stages.scenes import colmap


def test_png_written_beside_pycolmap() -> None:
    """Where pycolmap comes first, its zlib gets into the system's libz, and Pillow's PNGs abort."""
    script = """
import io
from stages.scenes import colmap_import
from PIL import Image
for _ in range(20):
    Image.effect_noise((640, 480), 64).save(io.BytesIO(), "png")
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[:500]


def test_model_there_and_back(tmp_path: Path) -> None:
    cameras = ring(3)
    points, colors = cloud(0), np.arange(360, dtype=np.uint32).reshape(-1, 3).astype(np.uint8)
    colmap.write_model(tmp_path / "model", cameras, points, colors)
    result = colmap.read_model(tmp_path / "model")
    assert list(result.cameras) == list(cameras)
    for name, camera in cameras.items():
        np.testing.assert_allclose(result.cameras[name].K, camera.K)
        np.testing.assert_allclose(
            result.cameras[name].cam_from_world, camera.cam_from_world, atol=1e-12
        )
        assert (result.cameras[name].width, result.cameras[name].height) == (400, 400)
    np.testing.assert_allclose(result.points, points)
    np.testing.assert_array_equal(result.colors, colors)


def test_pycolmap_projects_as_we_do(tmp_path: Path) -> None:
    cameras = ring(3)
    colmap.write_model(tmp_path, cameras)
    model = pycolmap.Reconstruction(tmp_path)
    for image in model.images.values():
        wanted = project(cameras[image.name], cloud(0))
        result = [image.project_point(point) for point in cloud(0)]
        np.testing.assert_allclose(result, wanted, atol=1e-9)


def test_model_without_points_is_whole(tmp_path: Path) -> None:
    colmap.write_model(tmp_path, ring(2))
    result = colmap.read_model(tmp_path)
    assert result.points.shape == result.colors.shape == (0, 3)


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        colmap.write_model(tmp_path / name, ring(3), cloud(0), np.zeros((120, 3), np.uint8))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("content", [None, b"no model"])
def test_missing_or_broken_model_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        for name in ("cameras.bin", "images.bin", "points3D.bin"):
            (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="no COLMAP model"):
        colmap.read_model(tmp_path)
