"""VGGT behind its published interface, by a stand-in package of the same contract."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.run.errors import UserError
from stages.scenes.cameras import look_at
from stages.scenes.config import VggtConfig
from stages.splat import vggt

# Like the package: a class with `from_pretrained`, and a function that decodes `pose_enc`.
MODEL = """
import torch

class VGGT(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, weights):
        if weights != "here":
            raise OSError(f"no weights at {weights}")
        return cls()

    def forward(self, images):
        assert images.ndim == 4 and images.shape[1] == 3, images.shape
        assert images.shape[2] % 14 == 0 and images.shape[3] % 14 == 0, images.shape
        assert 0 <= images.min() and images.max() <= 1
        assert not torch.is_grad_enabled()
        means = images.mean(dim=(1, 2, 3))
        return {"pose_enc": means[None, :, None].repeat(1, 1, 9), "depth": images}
"""
DECODER = """
import torch

def pose_encoding_to_extri_intri(pose_encoding, image_size_hw):
    count, (height, width) = pose_encoding.shape[1], image_size_hw
    poses = torch.eye(4)[:3].repeat(1, count, 1, 1)
    poses[0, :, 2, 3] = pose_encoding[0, :, 0]
    K = torch.tensor([[300.0, 0, width / 2], [0, 300.0, height / 2], [0, 0, 1]])
    return poses, K.repeat(1, count, 1, 1)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in, importable as `vggt`."""
    import sys

    for name, text in (("models/vggt.py", MODEL), ("utils/pose_enc.py", DECODER)):
        path = tmp_path / "vggt" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    (tmp_path / "vggt" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "vggt"]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
def test_model_is_called_by_the_published_interface() -> None:
    predict = vggt.predictor(VggtConfig(weights="here", device="cpu", image_px=56))
    dark, light = np.zeros((40, 80, 3), np.float32), np.ones((80, 40, 3), np.float32)
    cameras = predict({"dark.jpg": dark, "light.jpg": light})
    assert [(camera.name, camera.width, camera.height) for camera in cameras.values()] == [
        ("dark.jpg", 80, 40),
        ("light.jpg", 40, 80),
    ]
    # 56 px show 80: focals grow by 10/7, and the centre of the square is that of the image.
    for camera in cameras.values():
        assert camera.K[0, 0] == pytest.approx(300 * 80 / 56)
        assert camera.K[:2, 2] == pytest.approx([camera.width / 2, camera.height / 2])
    # The padding is white: half of the dark one's square.
    assert cameras["dark.jpg"].cam_from_world[2, 3] == pytest.approx(0.5, abs=0.01)
    assert cameras["light.jpg"].cam_from_world[2, 3] == pytest.approx(1.0)


@pytest.mark.usefixtures("installed")
def test_error_of_absent_weights_names_the_alternative() -> None:
    with pytest.raises(UserError, match="sfm, which does not need it"):
        vggt.load(VggtConfig(weights="elsewhere", device="cpu"))


def test_error_of_an_absent_package_names_the_alternative() -> None:
    with pytest.raises(UserError) as caught:
        vggt.predictor(VggtConfig())
    assert "the package vggt is not installed" in str(caught.value)
    assert "set the method to sfm" in str(caught.value)


def test_true_cameras_survive_padding_and_resizing() -> None:
    """A model returns true cameras in its own pixels, with rotations that are not orthonormal."""
    pose = look_at([1.0, -0.5, -3.0], [0, 0, 0], [0, -1, 0])
    sizes = {"a": (30, 60), "b": (90, 50)}
    true_K = {
        name: np.array([[100.0, 0, w / 2 + 3], [0, 101.0, h / 2 - 2], [0, 0, 1]])
        for name, (h, w) in sizes.items()
    }

    def model(images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        side, Ks = images.shape[-1], []
        for name, (h, w) in sizes.items():
            scale = side / max(h, w)
            K = np.diag([round(scale * w) / w, round(scale * h) / h, 1.0]) @ true_K[name]
            K[:2, 2] += [(side - round(scale * w)) // 2, (side - round(scale * h)) // 2]
            Ks.append(K)
        rough = pose[:3].copy()
        rough[:, :3] *= 1.01
        return np.stack([rough, rough]), np.stack(Ks)

    images = {name: np.zeros((h, w, 3), np.float32) for name, (h, w) in sizes.items()}
    for name, camera in vggt.predict(images, model, 56).items():
        assert np.allclose(camera.K, true_K[name])
        assert np.allclose(camera.cam_from_world, pose)


def test_output_of_another_shape_is_refused() -> None:
    images = {"a": np.zeros((28, 28, 3), np.float32)}
    with pytest.raises(UserError, match="published version"):
        vggt.predict(images, lambda batch: (np.zeros((1, 4, 4)), np.zeros((1, 3, 3))), 28)
