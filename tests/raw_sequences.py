"""Raw sequences in Hi4D's layout, small enough for a test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stages.scenes.cameras import look_at
from stages.scenes.lenses.distortion import distort

LANDMARKS = np.array([[0.3, 0.2, 0.1], [-0.4, -0.3, 0.0], [0.1, -0.5, 0.3], [-0.2, 0.6, -0.2]])


def write_raw_sequence(
    root: Path,
    cameras: Sequence[int] = (4, 16, 28),
    frames: Sequence[int] = (21, 22, 23),
    size: tuple[int, int] = (96, 128),
    distortion: Sequence[float] | None = (0.0,) * 5,
    skew: float = 0.0,
    masks: Sequence[str] = ("all", "0", "1"),
    span: tuple[int, int] | None = None,
    intrinsics_key: str = "intrinsics",
    suffix: str = ".png",
) -> Path:
    """Cameras on an arc that photograph white blobs at LANDMARKS; the frame's number is in the red.

    The people masks are the upper left quarter (0) and the lower right quarter (1).
    """
    width, height = size
    K = np.array([[1.1 * width, skew, 0.52 * width], [0, 1.12 * width, 0.49 * height], [0, 0, 1.0]])
    angles = np.linspace(0, 2, len(cameras))
    eyes = [3 * np.array([np.sin(angle), 0.2, -np.cos(angle)]) for angle in angles]
    poses = np.stack([look_at(eye, np.zeros(3), [0, 1, 0])[:3] for eye in eyes])
    calibration = {"ids": np.array(cameras), intrinsics_key: np.stack([K] * len(cameras))}
    calibration["extrinsics"] = poses
    if distortion is not None:
        calibration["dist_coeffs"] = np.stack([np.array(distortion)] * len(cameras))
    (root / "cameras").mkdir(parents=True)
    np.savez(root / "cameras" / "rgb_cameras.npz", **calibration)
    if span:
        np.savez(root / "meta.npz", start=span[0], end=span[1], genders=np.array(["f", "m"]))
    for camera, pose in zip(cameras, poses, strict=True):
        bends = np.zeros(5) if distortion is None else np.array(distortion)
        photograph = _photograph(K, pose, bends, width, height)
        for frame in frames:
            photograph[..., 0] = frame
            _save(root / "images" / str(camera) / f"{frame:06d}{suffix}", photograph)
            for kind in masks:
                mask = np.zeros((height, width), np.uint8)
                mask[: height // 2, : width // 2] = 255 * (kind != "1")
                mask[height // 2 :, width // 2 :] = 255 * (kind != "0")
                _save(root / f"seg/img_seg_mask/{camera}/{kind}/{frame:06d}.png", mask)
    return root


def _photograph(
    K: np.ndarray, pose: np.ndarray, bends: np.ndarray, width: int, height: int
) -> np.ndarray:
    """What a camera with distortion and skew sees, 8-bit [H, W, 3]."""
    in_camera = LANDMARKS @ pose[:, :3].T + pose[:, 3]
    bent = distort(in_camera[:, :2] / in_camera[:, 2:], bends)
    pixels = np.column_stack([bent, np.ones(len(bent))]) @ K.T
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    glow = sum(np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18) for x, y, _ in pixels)
    return np.repeat(np.rint(255 * np.clip(glow, 0, 1))[..., None], 3, axis=2).astype(np.uint8)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
