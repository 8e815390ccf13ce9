"""The table of static scenes by kinds of camera, with averages and deviations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.quality.keys import MASKED, MEASURES
from stages.quality.table import render_table
from stages.run.methods import PLAIN

AVERAGE, DEVIATION = "Avg", "Std"
NUMBERS = (*MASKED, *MEASURES, "covisible")
COLUMNS = ["scene", "camera", "train_views", *NUMBERS]
_TITLES = {
    "mpsnr": "mPSNR dB",
    "mssim": "mSSIM",
    "mlpips": "mLPIPS",
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "covisible": "covisible",
}
_READING = (
    "m... measures are over the pixels covisible in a camera's own images, which differ between "
    "cameras. Compare cameras by the measures of whole frames."
)

StaticRow = dict[str, Any]


def label(camera: str, method: str) -> str:
    """What a row is of: a kind of camera, by a method other than the plain Gaussians.

    >>> label("stereo", "none"), label("stereo", "tuned-post")
    ('stereo', 'stereo by tuned-post')
    """
    return camera if method == PLAIN else f"{camera} by {method}"


def static_rows(means_by_camera: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[StaticRow]:
    """A row per scene and camera, then average and population deviation per camera.

    Cameras are named by `label`.
    """
    rows: list[StaticRow] = [
        {"scene": scene, "camera": camera, **{key: means[key] for key in COLUMNS[2:]}}
        for (scene, camera), means in means_by_camera.items()
    ]
    cameras = dict.fromkeys(camera for _, camera in means_by_camera)
    for name, statistic in ((AVERAGE, np.mean), (DEVIATION, np.std)):
        for camera in cameras:
            of_camera = [
                row
                for row in rows
                if row["camera"] == camera and row["scene"] not in (AVERAGE, DEVIATION)
            ]
            row: StaticRow = {"scene": name, "camera": camera, "train_views": None}
            for key in NUMBERS:
                values = [one[key] for one in of_camera if one[key] is not None]
                row[key] = round(float(statistic(values)), 6) if values else None
            rows.append(row)
    return rows


def averages(rows: Sequence[StaticRow]) -> dict[str, Any]:
    """Averages by camera and measure, for metrics files."""
    return {
        row["camera"]: {key: row[key] for key in NUMBERS} for row in rows if row["scene"] == AVERAGE
    }


def text(rows: Sequence[StaticRow]) -> str:
    """The table as text."""
    lines = [["", "camera", "views", *(_TITLES[key] for key in NUMBERS)]]
    for row in rows:
        cells = [_cell(row[key], ".2f" if "psnr" in key else ".4f") for key in NUMBERS]
        lines.append([row["scene"], row["camera"], _cell(row["train_views"], "d"), *cells])
    return f"{render_table(lines)}\n{_READING}"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
