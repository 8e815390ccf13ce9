"""The tuning samples of a scene on disk: data/pairs/<scene>, listed in pairs.json.

A sample is a target (camera, timestamp) with a reference, the image of a source camera: three
images of one name, `image` (the render), `target_image` (the ground truth) and `ref_image`. For
fixers that take them, images of source cameras warped into the target are beside it, `warped_1` the
best: PNGs whose alpha is the agreement of the depths (`splat.views.warping`).

pairs.json says of each sample what it shows and how its render was degraded, and lists the hashes
of all images of the scene, so that leaks are found without the scene.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.run.errors import UserError
from stages.run.files import read_json, text_hash, write_json

KINDS = ("image", "target_image", "ref_image")
IMPORTED = "imported"  # in place of poses and timestamps of samples that another program wrote
_WARPED = "warped_"
_TUPLES = ("warped", "trained_on")
INDEX_FILE = "pairs.json"


@dataclass(frozen=True)
class SamplePaths:
    """Where things of a scene lie, by its name."""

    samples: Callable[[str], Path]  # folder of its samples
    metrics: Callable[[str], Path]  # file with their metrics
    scene: Callable[[str], Path]  # folder of the prepared scene

    @property
    def samples_root(self) -> Path:
        """The folder with the samples of all scenes."""
        return self.samples("scene").parent


@dataclass(frozen=True)
class SampleRecord:
    """A sample on disk: how good its render is, and the SHA-256 of its files by kind.

    Its Gaussians were trained for `step` steps; None: to the end. `degradation` says on what
    (`planning.Way`), and `trained_on` on which source cameras, where these are not all: none in a
    cycle, whose Gaussians were trained on renders.
    """

    name: str
    camera: str
    timestamp: str
    ref_camera: str
    ref_timestamp: str
    step: int | None
    left_out: bool
    poses: str
    psnr: float  # of the render against the ground truth, dB
    files: Mapping[str, str]
    warped: tuple[str, ...] = ()  # cameras of the warped images, in their order
    degradation: str = ""
    trained_on: tuple[str, ...] = ()

    def path(self, folder: Path, kind: str) -> Path:
        """One of its files, where `folder` has the samples of its scene."""
        return folder / kind / f"{self.name}.png"


@dataclass(frozen=True)
class SampleIndex:
    """The content of pairs.json.

    `photographs` has, by role, the SHA-256 of every image of the scene as `<timestamp>/<camera>`.
    """

    scene: str
    group: str
    split: str
    photographs: Mapping[str, Mapping[str, str]]
    pairs: tuple[SampleRecord, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the whole content, and so over every file."""
        return text_hash(json.dumps(_content(self), sort_keys=True))


def is_imported(index: SampleIndex) -> bool:
    """Whether another program wrote the samples."""
    return any(record.poses == IMPORTED for record in index.pairs)


def imported_places(index: SampleIndex, folder: Path) -> dict[tuple[str, str], str]:
    """A file in `folder` and its sample's id, by name in `photographs` and SHA-256, of imports."""
    return {
        (f"{IMPORTED}/{record.camera}", digest): f"{record.path(folder, kind)}  {record.camera}"
        for record in index.pairs
        if record.poses == IMPORTED
        for kind, digest in record.files.items()
    }


def warped_kind(number: int) -> str:
    """The kind of a target's n-th best warped image, from 1 on.

    >>> warped_kind(1)
    'warped_1'
    """
    return f"{_WARPED}{number}"


def warped_paths(image: Path) -> list[Path]:
    """The warped images that lie beside a sample's `image`, the best first."""
    paths: list[Path] = []
    while (path := image.parent.parent / warped_kind(len(paths) + 1) / image.name).is_file():
        paths.append(path)
    return paths


def write_index(folder: Path, index: SampleIndex) -> None:
    """Write pairs.json."""
    write_json(folder / INDEX_FILE, _content(index))


def _content(index: SampleIndex) -> dict[str, Any]:
    """The index for JSON; samples of Gaussians of all source cameras need no word on these."""
    content = asdict(index)
    for record in content["pairs"]:
        for key in ("degradation", "trained_on"):
            if not record[key]:
                del record[key]
    return content


def read_index(folder: Path) -> SampleIndex:
    """Read pairs.json. Raises UserError when it is missing or has another structure."""
    content = read_json(folder / INDEX_FILE)
    try:
        index = SampleIndex(**content)
        records = tuple(
            SampleRecord(**record | {key: tuple(record.get(key, ())) for key in _TUPLES})
            for record in content["pairs"]
        )
        if not all(set(record.files) <= _kinds(record) for record in records) or set(
            index.photographs
        ) != {"source", "target"}:
            raise ValueError("other kinds or roles")
        if not all(isinstance(record.psnr, float | int) for record in records):
            raise ValueError("psnr is no number")
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(
            folder / INDEX_FILE, f"not a list of pairs ({error})", fix="run `dvc repro pairs`"
        ) from error
    return replace(index, pairs=records)


def _kinds(record: SampleRecord) -> set[str]:
    """The kinds of files that a sample may have."""
    return {*KINDS, *(warped_kind(number + 1) for number in range(len(record.warped)))}


def degraded_summary(index: SampleIndex) -> str:
    """Number and mean PSNR of the samples of each way of degrading, such as `4 sparse 17.20 dB`."""
    values: dict[str, list[float]] = {}
    for record in index.pairs:
        if record.degradation:
            values.setdefault(record.degradation, []).append(record.psnr)
    means = (f"{len(some)} {way} {np.mean(some):.2f} dB" for way, some in values.items())
    return ", ".join(means)


def metrics(index: SampleIndex) -> dict[str, Any]:
    """Scalars of a scene's samples that git keeps, and the digest that later stages depend on."""
    values = [record.psnr for record in index.pairs]
    return {
        "pairs": len(values),
        "psnr": round(float(np.mean(values)), 4),
        "psnr_min": min(values),
        "psnr_max": max(values),
        "digest": index.digest,
    }
