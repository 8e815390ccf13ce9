"""Which views of a scene become tuning samples, and what the samples of a scene are on disk.

A sample is (camera, timestamp) with a reference, the photograph of a source camera. On disk it is
three images of one name, `image`, `target_image` and `ref_image`/<name>.png; pairs.json says of
each what it shows, and what each photograph of the scene hashes to, so that leaks can be found
without the scene.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.run.errors import UserError
from stages.run.files import read_json, text_hash, write_json
from stages.run.settings.params import CHECK, did_you_mean
from stages.scenes.cameras import Camera, nearest_cameras
from stages.scenes.config import PairsConfig, ReferenceConfig

KINDS = ("image", "target_image", "ref_image")
INFO = "pairs.json"


@dataclass(frozen=True)
class Sample:
    """What a sample shows; `step` is that of the Gaussians, None after the last."""

    camera: str
    timestamp: str
    ref_camera: str
    ref_timestamp: str
    step: int | None = None
    left_out: bool = False  # a source camera that these Gaussians were trained without
    first: bool = True  # nearest reference of its target

    @property
    def name(self) -> str:
        """Name of its files: the plain one belongs to the first reference of final Gaussians.

        >>> Sample("28", "000021", "16", "000021").name
        '000021_28'
        >>> Sample("28", "000021", "4", "000033", step=200, first=False).name
        '000021_28_step200_ref_000033_4'
        """
        step = "" if self.step is None else f"_step{self.step}"
        reference = "" if self.first else f"_ref_{self.ref_timestamp}_{self.ref_camera}"
        return f"{self.timestamp}_{self.camera}{step}{reference}"


@dataclass(frozen=True)
class SampleRecord:
    """A sample that was made: how good its input is, and the SHA-256 of its files by kind."""

    name: str
    camera: str
    timestamp: str
    ref_camera: str
    ref_timestamp: str
    step: int | None
    left_out: bool
    poses: str
    psnr: float  # of the input against the photograph, dB
    files: Mapping[str, str]


@dataclass(frozen=True)
class SampleIndex:
    """Everything that pairs.json says about the samples of a scene.

    `photographs` holds, by role, the SHA-256 of every photograph as `<timestamp>/<camera>`.
    """

    scene: str
    group: str
    split: str
    photographs: Mapping[str, Mapping[str, str]]
    pairs: tuple[SampleRecord, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over all of it; a changed byte of any file changes it."""
        return text_hash(json.dumps(asdict(self), sort_keys=True))


def plan(
    timestamps: Sequence[str],
    targets: Mapping[str, Camera],
    sources: Mapping[str, Camera],
    config: PairsConfig,
    left_out: bool = False,
) -> list[Sample]:
    """Samples of cameras in one frame, in a fixed order; a target without a reference has none."""
    samples = []
    for timestamp in timestamps[:: config.every]:
        times = reference_times(timestamps, timestamp, config.reference)
        for name, camera in targets.items():
            nearest = nearest_cameras(camera, sources, config.reference.cameras)
            references = [(ref, time) for time in times for ref in nearest]
            for step in (None, *config.steps):
                samples += [
                    Sample(name, timestamp, ref, time, step, left_out, first=place == 0)
                    for place, (ref, time) in enumerate(references)
                ]
    return samples


def reference_times(
    timestamps: Sequence[str], timestamp: str, reference: ReferenceConfig
) -> list[str]:
    """Timestamps that references of a target are taken from; those before the first do not exist.

    >>> reference_times("abcd", "b", ReferenceConfig(strategy="mixed", offset_frames=1))
    ['b', 'a', 'c']
    """
    k = reference.offset_frames
    offsets = {"same_time": (0,), "temporal": (-k, k), "mixed": (0, -k, k)}[reference.strategy]
    places = [timestamps.index(timestamp) + offset for offset in offsets]
    return [timestamps[place] for place in places if 0 <= place < len(timestamps)]


def chosen(wanted: Sequence[str], cameras: Iterable[str], where: str, role: str) -> list[str]:
    """The wanted cameras of a role, in the scene's order.

    Raises UserError for a name that is no camera of this role.
    """
    known = list(cameras)
    for name in wanted:
        if name not in known:
            raise UserError(
                where, repr(name), expected=f"{role} cameras of the scene: {', '.join(known)}",
                hint=did_you_mean(name, known), fix=CHECK,
            )  # fmt: skip
    return [name for name in known if name in wanted]


def thinned(samples: Sequence[Sample], limit: int, seed: int) -> list[Sample]:
    """`limit` samples that the seed picks, in their order; 0 or too many means all."""
    if limit == 0 or limit >= len(samples):
        return list(samples)
    picked = np.random.default_rng(seed).permutation(len(samples))[:limit]
    return [samples[place] for place in sorted(picked)]


def for_split(config: PairsConfig, split: str) -> PairsConfig:
    """`config` for a split: what is only measured on looks as at inference, and all of it counts.

    So every variant of the tuning data is checked on the same test samples.
    """
    if split == "train":
        return config
    plain: dict[str, Any] = {"cameras": (), "leave_out": (), "steps": (), "max_pairs": 0}
    plain |= {"poses": config.test_poses, "reference": ReferenceConfig()}
    return config.model_copy(update=plain)


def write_index(folder: Path, index: SampleIndex) -> None:
    """Write pairs.json."""
    write_json(folder / INFO, asdict(index))


def read_index(folder: Path) -> SampleIndex:
    """Read pairs.json. Raises UserError when it is missing or not one of ours."""
    info = read_json(folder / INFO)
    try:
        index = SampleIndex(**info)
        records = tuple(SampleRecord(**record) for record in info["pairs"])
        names = {kind for record in records for kind in record.files}
        if not names <= set(KINDS) or set(index.photographs) != {"source", "target"}:
            raise ValueError("other kinds or roles")
        if not all(isinstance(one.psnr, float | int) for one in records):
            raise ValueError("psnr is no number")
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(
            folder / INFO, f"not a list of pairs ({error})", fix="run `dvc repro pairs`"
        ) from error
    return replace(index, pairs=records)


def metrics(index: SampleIndex) -> dict[str, Any]:
    """What git keeps of the pairs of a scene: scalars, and the digest that others depend on."""
    values = [record.psnr for record in index.pairs]
    return {
        "pairs": len(values),
        "psnr": round(float(np.mean(values)), 4),
        "psnr_min": min(values),
        "psnr_max": max(values),
        "digest": index.digest,
    }
