"""Poses and intrinsics of images by VGGT (Wang et al. 2025): the only module that imports it.

Of the published package `vggt` it uses: `vggt.models.vggt.VGGT` with `from_pretrained`,
whose `model(images)` takes [S, 3, H, W] in [0, 1], sides multiples of 14, and gives `pose_enc`;
`vggt.utils.pose_enc.pose_encoding_to_extri_intri(pose_enc, (H, W))` gives cam_from_world
[1, S, 3, 4] in OpenCV's convention and K [1, S, 3, 3] in px of these images. The package is not on
an index and its weights have a licence of their own, so neither is a dependency of this project.
"""

import importlib.util
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.run.process.gpus import expect_gpu
from stages.scenes.cameras import Array, Camera, rigid
from stages.scenes.config import VggtConfig
from stages.scenes.images import Pixels, resize

_PATCH_PX = 14
_HOW = (
    "install github.com/facebookresearch/vggt into this environment and name its weights in "
    "vggt.weights; or set the method to sfm, which does not need it"
)

# cam_from_world [S, 3, 4] and K [S, 3, 3] of images [S, 3, H, W].
Model = Callable[[Tensor], tuple[Array, Array]]


def predictor(config: VggtConfig) -> Callable[[Mapping[str, Pixels]], dict[str, Camera]]:
    """A function that predicts the camera of every image, by name.

    Raises UserError when the package or its weights are missing.
    """
    model = load(config)
    return lambda images: predict(images, model, config.image_px)


def predict(images: Mapping[str, Pixels], model: Model, image_px: int) -> dict[str, Camera]:
    """Pinhole cameras of images [H, W, 3], each at its own size, in one frame.

    Every image is fitted into a square of `image_px`, as the model expects, and padded with white;
    its camera is converted back to the image's own pixels.
    """
    padded = {name: _padded(image, image_px) for name, image in images.items()}
    batch = torch.stack(
        [torch.from_numpy(square).permute(2, 0, 1) for square, _ in padded.values()]
    )
    poses, intrinsics = model(batch)
    if poses.shape != (len(images), 3, 4) or intrinsics.shape != (len(images), 3, 3):
        raise UserError(
            "vggt",
            f"poses of shape {poses.shape} and K of {intrinsics.shape}",
            expected=f"({len(images)}, 3, 4) and ({len(images)}, 3, 3)",
            fix="use the package's published version",
        )
    cameras = {}
    for (name, image), (_, crop), pose, K in zip(
        images.items(), padded.values(), poses, intrinsics, strict=True
    ):
        left, top, width, height = crop
        moved = K.astype(np.float64)
        moved[:2, 2] -= (left, top)
        # A network's rotation matrix is orthonormal to a few digits only.
        u, _, vt = np.linalg.svd(pose[:, :3].astype(np.float64))
        fitted = Camera(name, moved, rigid(u @ vt, pose[:, 3]), width, height)
        cameras[name] = fitted.resized(image.shape[1], image.shape[0])
    return cameras


def load(config: VggtConfig) -> Model:
    """The published model. Raises UserError when it is not installed or has no weights."""
    if importlib.util.find_spec("vggt") is None:
        raise UserError("vggt", "the package vggt is not installed", fix=_HOW)
    from vggt.models.vggt import VGGT
    from vggt.utils.pose_enc import pose_encoding_to_extri_intri

    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    if config.device == "cuda" and device == "cpu":
        raise UserError("vggt.device", "cuda, but torch finds no GPU", fix="set it to cpu")
    if config.device == "auto" and device == "cpu":
        expect_gpu("vggt.device")
    try:
        network = VGGT.from_pretrained(config.weights).to(device).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError("vggt.weights", f"{config.weights!r}: {error}", fix=_HOW) from error

    @torch.inference_mode()
    def run(images: Tensor) -> tuple[Array, Array]:
        encoded = network(images.to(device))["pose_enc"]
        poses, intrinsics = pose_encoding_to_extri_intri(encoded, images.shape[-2:])
        return poses[0].float().cpu().numpy(), intrinsics[0].float().cpu().numpy()

    return run


def _padded(image: Pixels, side_px: int) -> tuple[Pixels, tuple[int, int, int, int]]:
    """The image in the middle of a white square, and its (left, top, width, height) there."""
    assert side_px % _PATCH_PX == 0, f"{side_px} is no multiple of {_PATCH_PX}"
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    w, h = max(1, round(scale * width)), max(1, round(scale * height))
    left, top = (side_px - w) // 2, (side_px - h) // 2
    square = np.ones((side_px, side_px, 3), np.float32)
    square[top : top + h, left : left + w] = resize(image, w, h)
    return square, (left, top, w, h)
