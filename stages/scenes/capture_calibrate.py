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
from stages.scenes.capture_config import CaptureCalibrateConfig
from stages.scenes.colmap import write_model
from stages.scenes.colmap_lenses import find_model
from stages.scenes.colmap_mapping import Mapped, adjust_posed, describe, map_photographs
from stages.scenes.dataset import Dataset, find_photographs, shortened
from stages.scenes.images import Pixels, read_image

# Approximate pinhole cameras by image name, from the photographs [H, W, 3] by name.
Predict = Callable[[Mapping[str, Pixels]], Mapping[str, Camera]]


def calibrate_capture(
    source: Path, folder: Path, config: CaptureCalibrateConfig, predict: Predict | None = None
) -> dict[str, Any]:
    """Write the dataset of the photographs in `source` into `folder`; return its metrics.

    `source` holds the photographs, or `images/` with them and perhaps a model. Raises UserError
    for an unreadable photograph, a contradictory model, and when fewer than `min_registered` of
    the photographs get a pose.
    """
    method = _method(source, config)
    photographs = find_photographs(source)
    for path in photographs.values():
        read_image(path)  # COLMAP passes a broken one over in silence
    for name, path in photographs.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "images" / name)
    names, into = list(photographs), folder / "sparse" / "0"
    with tempfile.TemporaryDirectory() as scratch:
        if method == "given":
            mapped = _given(source, into)
        elif method == "sfm":
            mapped = map_photographs(folder / "images", names, into, Path(scratch), config)
        else:
            start = _start(method, source, photographs, Path(scratch), predict)
            mapped = adjust_posed(folder / "images", start, into, Path(scratch), config)
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


def _method(source: Path, config: CaptureCalibrateConfig) -> str:
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


def _given(source: Path, into: Path) -> Mapped:
    model = Dataset.read(source).model
    into.mkdir(parents=True)
    for path in sorted(model.iterdir()):
        if path.suffix in (".bin", ".txt"):
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
