"""Nerfstudio's `transforms.json` as a COLMAP dataset: its poses, lenses and masks, no points."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stages.run.errors import UserError
from stages.scenes.cameras import quat_from_rotation
from stages.scenes.colmap_lenses import find_model
from stages.scenes.sources.transforms import FILES, FISHEYE, Frame, lens_of, read_frames


def has_transforms(source: Path) -> bool:
    """Whether a folder is nerfstudio's and not also a COLMAP dataset, which goes first."""
    return (source / FILES[0]).is_file() and find_model(source) is None


def write_dataset(source: Path, folder: Path) -> int:
    """Write links to the images and masks, and a model in text; return the number of images.

    Raises UserError for a file or a frame that is not as nerfstudio has it.
    """
    frames = read_frames(source, [source / FILES[0]])
    names = [_name(source, frame.image) for frame in frames]
    if len(set(names)) < len(names):
        raise UserError(source / FILES[0], "two frames of one image", expected="one frame each")
    for name, frame in zip(names, frames, strict=True):
        _link(folder / "images" / name, frame.image)
        if frame.mask is not None:
            _link(folder / "masks" / f"{name}.png", frame.mask)
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "points3D.txt").write_text("")
    lenses = [_lens(frame) for frame in frames]
    numbers = {lens: number for number, lens in enumerate(dict.fromkeys(lenses), 1)}
    rows = "".join(f"{number} {lens}\n" for lens, number in numbers.items())
    (model / "cameras.txt").write_text(rows)
    (model / "images.txt").write_text("".join(_images(names, frames, lenses, numbers)))
    return len(frames)


def _name(source: Path, image: Path) -> str:
    """An image's name in the model: its path without the leading folder `images`."""
    parts = image.relative_to(source).parts
    return "/".join(parts[1:] if len(parts) > 1 and parts[0] == "images" else parts)


def _link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to.resolve())


def _lens(frame: Frame) -> str:
    """A line of cameras.txt without its number. Equal lenses are one camera."""
    lens = lens_of(frame)
    k1, k2, k3, k4, p1, p2 = (lens.bends[key] for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if lens.model == FISHEYE:
        model, bends = "OPENCV_FISHEYE", (k1, k2, k3, k4)
    elif k3 or k4:
        model, bends = "FULL_OPENCV", (k1, k2, p1, p2, k3, k4, 0.0, 0.0)
    else:
        model, bends = "OPENCV", (k1, k2, p1, p2)
    K = lens.K
    numbers = (K[0, 0], K[1, 1], K[0, 2], K[1, 2], *bends)
    return " ".join([model, *map(str, lens.size), *(f"{number:.17g}" for number in numbers)])


def _images(
    names: Sequence[str], frames: Sequence[Frame], lenses: Sequence[str], numbers: dict[str, int]
) -> Iterator[str]:
    """Two lines of images.txt per image, the second, of features, empty."""
    for index, (name, frame, lens) in enumerate(zip(names, frames, lenses, strict=True), 1):
        pose = frame.cam_from_world()
        quat = quat_from_rotation(pose[:3, :3])
        row = " ".join(f"{number:.17g}" for number in np.concatenate([quat, pose[:3, 3]]))
        yield f"{index} {row} {numbers[lens]} {name}\n\n"
