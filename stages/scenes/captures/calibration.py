"""A folder of images to a COLMAP dataset, with a model beside them or an estimated one."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.plurals import first_few
from stages.run.process.cores import available_cores
from stages.scenes.cameras import Camera
from stages.scenes.captures.colmap_mapping import (
    MappingSummary,
    adjust_posed,
    map_capture,
    summarise,
)
from stages.scenes.captures.config import CaptureCalibrateConfig
from stages.scenes.captures.transforms_dataset import has_transforms
from stages.scenes.colmap import write_model
from stages.scenes.colmap_lenses import find_model
from stages.scenes.colmap_matching import Matcher
from stages.scenes.dataset import Dataset, find_photographs
from stages.scenes.formats.colmap_binary import FILE_NAMES
from stages.scenes.image_folder import MARK
from stages.scenes.images import (
    Pixels,
    check_pixel_count,
    image_size,
    is_colmap_readable,
    read_image,
    write_png,
)

_LOGGER = logging.getLogger(__name__)

# Approximate pinhole cameras by image name, from the images [H, W, 3] by name.
Predict = Callable[[Mapping[str, Pixels]], Mapping[str, Camera]]

_BYTES_PER_PIXEL = 260  # memory of feature detection, measured
_MAX_OWN_ERROR_PX = 4.0  # COLMAP takes out points that miss a pixel by more
_DECODERS = 4  # images that are decoded at once, each with some bytes a pixel


def calibrate_capture(
    source: Path,
    folder: Path,
    config: CaptureCalibrateConfig,
    predict: Predict | None = None,
    matcher: Matcher | None = None,
) -> dict[str, Any]:
    """Write the dataset of the images in `source` into `folder`; return its metrics.

    `source` contains the images, or `images/` with them and perhaps a model. Without a `matcher`,
    COLMAP matches features. Raises UserError for
    an unreadable image, a contradictory model, and when fewer than `min_registered` of the images
    are registered.
    """
    method = method_of(source, config)
    images = _images_by_name(source, method)
    _check_images(images, method, config)
    for name, path in images.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "images" / name)
    (folder / MARK).write_text("Made by capture_calibrate: what lies here are copies.\n")
    if (source / "images").is_dir() and (source / "masks").is_dir():
        shutil.copytree(source / "masks", folder / "masks")
    names, model = list(images), folder / "sparse" / "0"
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        if method == "given":
            summary = _copy_model(source, model)
        elif method == "sfm":
            root = _colmap_readable(folder / "images", names, scratch)
            summary = map_capture(source, root, names, model, scratch, config, matcher)
        else:
            start = _start(method, source, images, scratch, predict)
            root = _colmap_readable(folder / "images", names, scratch)
            summary = adjust_posed(root, start, model, scratch, config, matcher)
    # A user's model may have fewer images than there are.
    missing = {name: "not in the model" for name in names if name not in summary.registered}
    missing |= summary.missing
    _check_registered(source, names, missing, config)
    notes = (*summary.notes, *_own_error(method, summary))
    for note in notes:
        _LOGGER.warning("%s: %s", source, note)
    return {
        "method": method,
        "registered": len(names) - len(missing),
        "total": len(names),
        "points": summary.points,
        "reprojection_error_px": round(summary.reprojection_error_px, 4),
        "agreement": _rounded(summary.agreement),
        "focal_deviation": _rounded(summary.focal_deviation),
        "note": "; ".join([*([_unregistered(missing)] if missing else []), *notes]),
    }


def _own_error(method: str, summary: MappingSummary) -> tuple[str, ...]:
    """A note where the points of a given model are not where its images show them."""
    error_px = summary.reprojection_error_px
    if method != "given" or error_px <= _MAX_OWN_ERROR_PX:
        return ()
    return (
        f"the model's own points miss their pixels by {error_px:.1f} px on average, so its poses "
        "or its lenses are not those of these images",
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else round(value, 5)


def method_of(source: Path, config: CaptureCalibrateConfig) -> str:
    """The configured method, with `auto` resolved.

    Poses of nerfstudio's transforms.json come without points, so that they are adjusted. Raises
    UserError when the method starts from a model and there is none.
    """
    has_model, has_poses = find_model(source) is not None, has_transforms(source)
    if config.method in ("given", "ba") and not has_model and not has_poses:
        raise UserError(
            source,
            f"no folder sparse for method {config.method} to start from",
            expected="a COLMAP model in sparse/0 or sparse",
            fix="set capture_calibrate.method to sfm",
        )
    if config.method == "auto":
        return "given" if has_model else "ba" if has_poses else "sfm"
    return config.method


def _images_by_name(source: Path, method: str) -> dict[str, Path]:
    """Images by name: the model's names, if the method uses a model."""
    paths = find_photographs(source)
    if method not in ("given", "ba"):
        return paths
    dataset = Dataset.read(source)
    posed = {view.name: view.image_path for view in dataset.views}
    return dict(sorted({**{name: paths[name] for name in dataset.without_pose}, **posed}.items()))


def _check_images(images: Mapping[str, Path], method: str, config: CaptureCalibrateConfig) -> None:
    """Raise UserError for an image that cannot be read; COLMAP skips it silently."""
    for path in images.values():
        if method != "given" and not config.max_image_px:
            check_pixel_count(
                path,
                image_size(path, upright=False),
                _BYTES_PER_PIXEL * min(available_cores(), len(images)),
                "set capture_calibrate.max_image_px, for example to 3200",
            )
    with ThreadPoolExecutor(min(_DECODERS, available_cores())) as pool:
        for _ in pool.map(lambda path: read_image(path, upright=False).shape, images.values()):
            pass


def _colmap_readable(root: Path, names: list[str], scratch: Path) -> Path:
    """`root`, or a copy in `scratch` with PNGs of the images that COLMAP cannot read."""
    unreadable = {name for name in names if not is_colmap_readable(root / name)}
    if not unreadable:
        return root
    copy = scratch / "images"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if name in unreadable:
            write_png(copy / name, read_image(root / name, upright=False))
        else:
            (copy / name).symlink_to((root / name).resolve())
    return copy


def _copy_model(source: Path, folder: Path) -> MappingSummary:
    model = Dataset.read(source).model
    folder.mkdir(parents=True)
    for name in FILE_NAMES:
        for path in (model / f"{name}.bin", model / f"{name}.txt"):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    return summarise(folder)


def _start(
    method: str,
    source: Path,
    paths: Mapping[str, Path],
    scratch: Path,
    predict: Predict | None,
) -> Path:
    """Folder of the model that bundle adjustment starts from."""
    if method == "ba":
        return Dataset.read(source).model
    assert predict is not None, f"method {method} needs a predictor of poses"
    images = {name: read_image(path, upright=False) for name, path in paths.items()}
    write_model(scratch / "predicted", predict(images))
    return scratch / "predicted"


def _check_registered(
    source: Path, names: list[str], missing: Mapping[str, str], config: CaptureCalibrateConfig
) -> None:
    registered = len(names) - len(missing)
    message = f"{registered} of {len(names)} images registered; {_unregistered(missing)}"
    if registered < max(2, config.min_registered * len(names)):
        raise UserError(
            source,
            message,
            expected=f"at least {config.min_registered:.0%} (capture_calibrate.min_registered)",
            fix="take images between those and the others, or lower min_registered to continue "
            "without them",
        )
    if missing:
        _LOGGER.warning("%s: %s", source, message)


def _unregistered(missing: Mapping[str, str]) -> str:
    return "without a pose: " + first_few([f"{name} ({tie})" for name, tie in missing.items()])
