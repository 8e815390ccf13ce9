"""A folder of photographs to a COLMAP dataset, with the model beside them or an estimate."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.scenes.cameras import Camera
from stages.scenes.captures.colmap_mapping import (
    MappingSummary,
    adjust_posed,
    describe,
    map_capture,
)
from stages.scenes.captures.config import CaptureCalibrateConfig
from stages.scenes.colmap import write_model
from stages.scenes.colmap_lenses import find_model
from stages.scenes.dataset import Dataset, find_photographs, shortened
from stages.scenes.formats.colmap_binary import NAMES
from stages.scenes.image_folder import MARK
from stages.scenes.images import (
    Pixels,
    check_pixel_count,
    image_size,
    is_colmap_readable,
    read_image,
    write_png,
)

# Approximate pinhole cameras by image name, from the photographs [H, W, 3] by name.
Predict = Callable[[Mapping[str, Pixels]], Mapping[str, Camera]]

_FEATURES = 200  # bytes a pixel that COLMAP's features take, by measurement


def calibrate_capture(
    source: Path, folder: Path, config: CaptureCalibrateConfig, predict: Predict | None = None
) -> dict[str, Any]:
    """Write the dataset of the photographs in `source` into `folder`; return its metrics.

    `source` holds the photographs, or `images/` with them and perhaps a model. Raises UserError
    for an unreadable photograph, a contradictory model, and when fewer than `min_registered` of
    the photographs get a pose.
    """
    method = method_of(source, config)
    photographs = _photographs(source, method)
    _check(photographs, method, config)
    for name, path in photographs.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "images" / name)
    (folder / MARK).write_text("Made by capture_calibrate: what lies here are copies.\n")
    if (source / "images").is_dir() and (source / "masks").is_dir():
        shutil.copytree(source / "masks", folder / "masks")
    names, into = list(photographs), folder / "sparse" / "0"
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        if method == "given":
            mapped = _given(source, into)
        elif method == "sfm":
            root = _readable(folder / "images", names, scratch)
            mapped = map_capture(source, root, names, into, scratch, config)
        else:
            start = _start(method, source, photographs, scratch, predict)
            root = _readable(folder / "images", names, scratch)
            mapped = adjust_posed(root, start, into, scratch, config)
    # A model that came along may name fewer photographs than there are.
    missing = {name: "not in the model" for name in names if name not in mapped.registered}
    missing |= mapped.missing
    _demand(source, names, missing, config)
    facts = asdict(mapped)
    return {
        "method": method,
        "registered": len(names) - len(missing),
        "total": len(names),
        "points": facts["points"],
        "reprojection_error_px": round(facts["reprojection_error_px"], 4),
        "note": _statement(missing) if missing else "",
    }


def method_of(source: Path, config: CaptureCalibrateConfig) -> str:
    """The method that `auto` chooses. Raises UserError when there is no model to start from."""
    has_model = find_model(source) is not None
    if config.method in ("given", "ba") and not has_model:
        raise UserError(
            source, f"no folder sparse, which method {config.method} starts from",
            expected="a COLMAP model in sparse/0 or sparse",
            fix="set capture_calibrate.method to sfm",
        )  # fmt: skip
    if config.method == "auto":
        return "given" if has_model else "sfm"
    return config.method


def _photographs(source: Path, method: str) -> dict[str, Path]:
    """Photographs by name; by that in the model, if the model counts."""
    found = find_photographs(source)
    if method not in ("given", "ba"):
        return found
    dataset = Dataset.read(source)
    named = {view.name: view.path for view in dataset.views}
    return dict(sorted({**{name: found[name] for name in dataset.without_pose}, **named}.items()))


def _check(photographs: Mapping[str, Path], method: str, config: CaptureCalibrateConfig) -> None:
    """Raise UserError for a photograph that cannot be read; COLMAP passes it over in silence."""
    for path in photographs.values():
        if method != "given" and not config.max_image_px:
            check_pixel_count(
                path, image_size(path, upright=False), _FEATURES * max(1, config.threads),
                "set capture_calibrate.max_image_px, such as 3200",
            )  # fmt: skip
        read_image(path, upright=False)


def _readable(root: Path, names: list[str], scratch: Path) -> Path:
    """`root`, or its twin in `scratch` where PNG stands for what COLMAP cannot read."""
    foreign = {name for name in names if not is_colmap_readable(root / name)}
    if not foreign:
        return root
    twin = scratch / "images"
    for name in names:
        (twin / name).parent.mkdir(parents=True, exist_ok=True)
        if name in foreign:
            write_png(twin / name, read_image(root / name, upright=False))
        else:
            (twin / name).symlink_to((root / name).resolve())
    return twin


def _given(source: Path, into: Path) -> MappingSummary:
    model = Dataset.read(source).model
    into.mkdir(parents=True)
    for name in NAMES:
        for path in (model / f"{name}.bin", model / f"{name}.txt"):
            if path.is_file():
                shutil.copyfile(path, into / path.name)
    return describe(into)


def _start(
    method: str, source: Path, photographs: Mapping[str, Path], scratch: Path,
    predict: Predict | None,
) -> Path:  # fmt: skip
    """The model that bundle adjustment starts from."""
    if method == "ba":
        return Dataset.read(source).model
    assert predict is not None, f"method {method} needs something that predicts poses"
    images = {name: read_image(path, upright=False) for name, path in photographs.items()}
    write_model(scratch / "predicted", predict(images))
    return scratch / "predicted"


def _demand(
    source: Path, names: list[str], missing: Mapping[str, str], config: CaptureCalibrateConfig
) -> None:
    got = len(names) - len(missing)
    told = f"{got} of {len(names)} photographs registered; {_statement(missing)}"
    if got < max(2, config.min_registered * len(names)):
        raise UserError(
            source, told,
            expected=f"at least {config.min_registered:.0%} (capture_calibrate.min_registered)",
            fix="take photographs between those and the others, or set min_registered lower to go "
            "on without them",
        )  # fmt: skip
    if missing:
        print(f"WARNING: {source}: {told}", file=sys.stderr, flush=True)


def _statement(missing: Mapping[str, str]) -> str:
    return "without a pose: " + shortened([f"{name} ({tie})" for name, tie in missing.items()])
