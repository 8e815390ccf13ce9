"""A raw sequence in Hi4D's layout, written again in the layouts of other programs and releases.

Images and masks are copied; calibrations are converted here by other means than the readers'.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# MVHumanNet's full size, px. Images of its miniature are a whole fraction of it.
FULL_WIDTH = 2448
SIZE = (153, 128)


@dataclass(frozen=True, eq=False)
class Original:
    """The calibration of a sequence in Hi4D's layout, and where its images are."""

    root: Path
    names: list[str]
    K: np.ndarray  # [C, 3, 3]
    poses: np.ndarray  # [C, 3, 4], world to camera
    bends: np.ndarray  # [C, 5]

    @classmethod
    def read(cls, root: Path) -> "Original":
        values = np.load(root / "cameras" / "rgb_cameras.npz")
        names = [str(name) for name in values["ids"]]
        return cls(root, names, *(values[k] for k in ("intrinsics", "extrinsics", "dist_coeffs")))

    @property
    def first_image(self) -> Path:
        """One of the images."""
        return min((self.root / "images" / self.names[0]).iterdir())

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the images, px."""
        return Image.open(self.first_image).size

    @property
    def suffix(self) -> str:
        """The images' kind."""
        return self.first_image.suffix

    def centres(self) -> np.ndarray:
        """Camera centres [C, 3], solved for."""
        return np.stack([np.linalg.solve(pose[:, :3], -pose[:, 3]) for pose in self.poses])

    def copy(self, image: Callable[[str, int], Path], mask: Callable[[str, int], Path]) -> None:
        """Copy images and masks of all people to the paths that a camera and a frame give."""
        for name in self.names:
            for path in sorted((self.root / "images" / name).iterdir()):
                frame = int(path.stem)
                masks = self.root / "seg" / "img_seg_mask" / name / "all" / f"{path.stem}.png"
                for source, to in ((path, image(name, frame)), (masks, mask(name, frame))):
                    to.parent.mkdir(parents=True, exist_ok=True)
                    to.write_bytes(source.read_bytes())


def write_easyvolcap(original: Original, root: Path, parts: tuple[str, ...] = ("",)) -> None:
    """As EasyVolcap writes it; each of `parts`, prefixes of files, has every n-th camera."""
    for index, part in enumerate(parts):
        mine = [c for c in range(len(original.names)) if c % len(parts) == index]
        names = "names:\n" + "".join(f'  - "{original.names[c]}"\n' for c in mine)
        intrinsics, extrinsics = names, names
        for c in mine:
            name, pose = original.names[c], original.poses[c]
            intrinsics += _matrix(f"K_{name}", original.K[c]) + "H_{0}: {1}\nW_{0}: {1}\n".format(
                name, "-1.0000000000"
            )
            intrinsics += _matrix(f"D_{name}", original.bends[c][:, None])
            extrinsics += _matrix(f"R_{name}", cv2.Rodrigues(pose[:, :3])[0])
            extrinsics += _matrix(f"Rot_{name}", pose[:, :3]) + _matrix(f"T_{name}", pose[:, 3:])
            extrinsics += f"t_{name}: 0.0000000000\n"
        root.mkdir(parents=True, exist_ok=True)
        for kind, text in (("intri", intrinsics), ("extri", extrinsics)):
            whole = f"%YAML:1.0\n---\n{text}".replace("\n", "\r\n")
            (root / f"{part}{kind}.yml").write_bytes(whole.encode())
    original.copy(
        lambda name, frame: root / "images" / name / f"{frame:06d}{original.suffix}",
        lambda name, frame: root / "masks" / name / f"{frame:06d}.png",
    )


def _matrix(key: str, values: np.ndarray) -> str:
    rows, columns = values.shape
    data = ", ".join(f"{value:.10f}" for value in values.ravel())
    head = f"{key}: !!opencv-matrix\n  rows: {rows}\n  cols: {columns}\n  dt: d\n"
    return f"{head}  data: [{data}]\n"


def write_transforms(original: Original, root: Path) -> None:
    """As nerfstudio has it, one folder per camera, intrinsics with each frame."""
    listed = []
    for c, name in enumerate(original.names):
        for path in sorted((original.root / "images" / name).iterdir()):
            own = {"file_path": f"images/{name}/frame_{int(path.stem):05d}{original.suffix}"}
            own["mask_path"] = f"masks/{name}/frame_{int(path.stem):05d}.png"
            listed.append(own | _nerfstudio(original, c))
    root.mkdir(parents=True)
    width, height = original.size
    top = {"camera_model": "OPENCV", "w": width, "h": height, "aabb_scale": 16}
    (root / "transforms.json").write_text(json.dumps(top | {"frames": listed}))
    original.copy(
        lambda name, frame: root / "images" / name / f"frame_{frame:05d}{original.suffix}",
        lambda name, frame: root / "masks" / name / f"frame_{frame:05d}.png",
    )


def _nerfstudio(original: Original, c: int) -> dict:
    """A camera's intrinsics, and its axes and centre as columns in OpenGL's convention."""
    pose, K = original.poses[c], original.K[c]
    right, down, forward = pose[:, :3]
    columns = [right, -down, -forward, original.centres()[c]]
    matrix = np.vstack([np.column_stack(columns), [0, 0, 0, 1]])
    lens = dict(zip(("k1", "k2", "p1", "p2", "k3"), original.bends[c].tolist(), strict=True))
    focal = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
    return focal | lens | {"transform_matrix": matrix.tolist()}


def write_actorshq(original: Original, root: Path) -> None:
    """As ActorsHQ's Actor01/Sequence1, with one scale."""
    scale = root / "4x"
    scale.mkdir(parents=True)
    lines = ["name,w,h,rx,ry,rz,tx,ty,tz,fx,fy,px,py"]
    width, height = original.size
    for c, name in enumerate(original.names):
        K = original.K[c]
        vector = cv2.Rodrigues(original.poses[c][:, :3].T.copy())[0].ravel()
        shares = K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height
        numbers = (*vector, *original.centres()[c], *shares)
        lines.append(",".join([name, str(width), str(height), *(f"{x:.15g}" for x in numbers)]))
    (scale / "calibration.csv").write_text("\n".join(lines) + "\n")
    (root / "aabbs.csv").write_text("")
    original.copy(
        lambda name, frame: scale / "rgbs" / name / f"{name}_rgb{frame:06d}{original.suffix}",
        lambda name, frame: scale / "masks" / name / f"{name}_mask{frame:06d}.png",
    )


def write_mvhumannet(original: Original, root: Path, metres: float = 100 / 65) -> None:
    """As MVHumanNet's outfit: one K of the full size, mm divided by the scale, a pickled float."""
    root.mkdir(parents=True)
    full = np.diag([FULL_WIDTH / original.size[0]] * 2 + [1]) @ original.K[0]
    (root / "camera_intrinsics.json").write_text(json.dumps({"intrinsics": full.tolist()}))
    extrinsics = {
        f"1_{name}.png": {
            "rotation": pose[:, :3].tolist(),
            "translation": (pose[:, 3] * 1000 / metres).tolist(),
        }
        for name, pose in zip(original.names, original.poses, strict=True)
    }
    (root / "camera_extrinsics.json").write_text(json.dumps(extrinsics))
    (root / "camera_scale.pkl").write_bytes(b"\x80\x03G" + struct.pack(">d", metres) + b".")
    original.copy(
        lambda name, frame: root / "images_lr" / name / f"{frame:04d}_img{original.suffix}",
        lambda name, frame: root / "fmask_lr" / name / f"{frame:04d}_img_fmask.png",
    )


WRITERS: dict[str, Callable[[Original, Path], None]] = {
    "easyvolcap": write_easyvolcap,
    "transforms": write_transforms,
    "actorshq": write_actorshq,
    "mvhumannet": write_mvhumannet,
}
# Those whose calibration has no lens distortion.
UNDISTORTED = ("actorshq", "mvhumannet")
