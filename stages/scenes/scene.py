"""A prepared scene on disk.

scene.json (name, group, size, source, licence, cameras), split.csv (image, camera, timestamp,
role) and one COLMAP dataset per timestamp, `frames/<t>/{images,masks,seen,sparse/0}`. Cameras do
not move: a camera's calibration is the same at every timestamp. `seen` holds masks of the valid
pixels of undistorted images that the lens did not cover wholly.
"""

import csv
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.run.errors import UserError
from stages.run.files import read_json, shaped, write_json
from stages.scenes.cameras import (
    Camera,
    camera_fault,
    quat_from_rotation,
    rigid,
    rotation_from_quat,
)
from stages.scenes.view import Role, View

SPLIT_COLUMNS = ("image", "camera", "timestamp", "role")
VALID_MASKS = "seen"


@dataclass(frozen=True, eq=False)
class Scene:
    """A prepared scene."""

    folder: Path
    name: str
    group: str
    all_views: tuple[View, ...]

    @classmethod
    def read(cls, folder: Path) -> "Scene":
        """Open a prepared scene. Raises UserError when one of its files is missing or broken."""
        name, group, cameras = _read_info(folder / "scene.json")
        rows = _read_split(folder / "split.csv")
        views = tuple(_view(folder, row, cameras) for row in rows)
        return cls(folder, name, group, views)

    @property
    def timestamps(self) -> list[str]:
        """Six-digit timestamps in order."""
        return sorted({view.timestamp for view in self.all_views})

    def views(self, role: Role | None = None, timestamp: str | None = None) -> list[View]:
        """Views of one role and timestamp; None selects any."""
        return [
            view
            for view in self.all_views
            if role in (None, view.role) and timestamp in (None, view.timestamp)
        ]

    def cameras(self, role: Role) -> dict[str, Camera]:
        """True cameras of one role. Raises UserError when there is none."""
        cameras = {view.name: view.camera for view in self.views(role)}
        if not cameras:
            raise UserError(
                self.folder / "split.csv",
                f"no {role} camera",
                expected="at least one source and one target",
                fix=f"list some in params.yaml, scenes.{self.name}.{role}_cameras",
            )
        return cameras


def camera_to_dict(camera: Camera) -> dict[str, Any]:
    """A camera for JSON: K, rotation_wxyz and translation of cam_from_world, size in px."""
    return {
        "K": camera.K.tolist(),
        "rotation_wxyz": quat_from_rotation(camera.cam_from_world[:3, :3]).tolist(),
        "translation": camera.cam_from_world[:3, 3].tolist(),
        "width": camera.width,
        "height": camera.height,
    }


def camera_from_dict(name: str, value: dict[str, Any]) -> Camera:
    """Inverse of `camera_to_dict`.

    Raises ValueError, TypeError or KeyError for anything else; readers use `shaped`.
    """
    quat, K = (np.array(value[key], np.float64) for key in ("rotation_wxyz", "K"))
    if quat.shape != (4,) or K.shape != (3, 3) or not 0.5 < np.linalg.norm(quat) < 2:
        raise ValueError(f"camera {name}: no unit quaternion and K of 3x3")
    pose = rigid(rotation_from_quat(quat), np.array(value["translation"], np.float64).reshape(3))
    size = value["width"], value["height"]
    if any(type(side) is not int or not 0 < side < 2**31 for side in size):
        raise ValueError(f"camera {name}: {size[0]}x{size[1]} px")
    fault = camera_fault(K, pose)
    if fault:
        raise ValueError(f"camera {name}: {fault}")
    return Camera(name, K, pose, *size)


def cameras_from_dict(value: Mapping[str, Any]) -> dict[str, Camera]:
    """Cameras by name, each from what `camera_to_dict` gave."""
    return {name: camera_from_dict(name, camera) for name, camera in value.items()}


def write_scene(folder: Path, info: Mapping[str, Any], views: Sequence[View]) -> None:
    """Write split.csv, and scene.json with `info` and the cameras; the images are not written."""
    _write_split(folder, views)
    cameras = {view.name: camera_to_dict(view.camera) for view in views}
    write_json(folder / "scene.json", {**info, "cameras": cameras})


def _write_split(folder: Path, views: Sequence[View]) -> None:
    with (folder / "split.csv").open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(SPLIT_COLUMNS)
        for view in views:
            image = view.image_path.relative_to(folder).as_posix()
            writer.writerow([image, view.name, view.timestamp, view.role])


def source_of(folder: Path) -> str:
    """`source` of a prepared scene in the catalogue, such as demo; empty where it is not known."""
    path = folder / "scene.json"
    return str(read_json(path).get("source", "")) if path.is_file() else ""


def _read_info(path: Path) -> tuple[str, str, dict[str, Camera]]:
    """Name, group and cameras of scene.json."""
    info = read_json(path)
    expected = "name, group, cameras with K, rotation_wxyz, translation, width, height"
    with shaped(path, expected, "run `dvc repro prepare`"):
        for key in ("name", "group"):
            if not isinstance(info[key], str):
                raise TypeError(f"{key} is no text")
        return info["name"], info["group"], cameras_from_dict(info["cameras"])


def _read_split(path: Path) -> list[dict[str, str]]:
    again = "run `dvc repro prepare`"
    if not path.is_file():
        raise UserError(path, "no such file", fix=again)
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            header, *rows = list(csv.reader(lines)) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(path, f"not a table ({error})", fix=again) from error
    if tuple(header) != SPLIT_COLUMNS:
        raise UserError(f"{path}:1", f"{header}", expected=",".join(SPLIT_COLUMNS), fix=again)
    for number, row in enumerate(rows, 2):
        if len(row) != len(SPLIT_COLUMNS) or not all(row):
            got = f"cells {row}"
            raise UserError(f"{path}:{number}", got, expected=",".join(SPLIT_COLUMNS), fix=again)
    return [dict(zip(SPLIT_COLUMNS, row, strict=True)) for row in rows]


def _is_inside(folder: Path, image: Path) -> bool:
    try:
        image.stat()
    except ValueError:  # a null character in the name
        return False
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            return False
    return image.resolve().is_relative_to(folder.resolve())


def _view(folder: Path, row: dict[str, str], cameras: dict[str, Camera]) -> View:
    image = folder / row["image"]
    if not _is_inside(folder, image):
        raise UserError(
            folder / "split.csv",
            f"{row['image']!r} leads out of the scene",
            expected="images in it",
            fix="run `dvc repro prepare`",
        )
    if row["camera"] not in cameras or row["role"] not in ("source", "target"):
        raise UserError(
            folder / "split.csv",
            f"{row['image']}: camera {row['camera']}, role {row['role']}",
            expected=f"a camera of {', '.join(cameras)} and a role of source, target",
        )
    if not image.is_file():
        raise UserError(image, "no such file, but split.csv names it", fix="run `dvc checkout`")
    frame = image.parent.parent
    mask = frame / "masks" / image.name
    return View(
        cameras[row["camera"]],
        image,
        mask if mask.is_file() else None,
        row["timestamp"],
        row["role"],  # type: ignore[arg-type]
        frame / VALID_MASKS / image.name,
    )
