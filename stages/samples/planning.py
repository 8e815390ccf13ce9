"""Which views of a scene become tuning samples, and the reference of each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from stages.run.errors import UserError
from stages.run.settings.params import CHECK, did_you_mean
from stages.scenes.cameras import Camera, nearest_cameras
from stages.scenes.config import DegradationConfig, PairsConfig, ReferenceConfig

T = TypeVar("T")
# How the Gaussians of a sample were trained. Nothing: on all source cameras. cross: without one or
# some of them, by pairs.leave_out. sparse, cycle: by pairs.degradation.
Way = Literal["", "cross", "sparse", "cycle"]
# Cameras of references by target camera at a timestamp, the best first.
Ranking = Callable[[str], Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class PlannedSample:
    """What a sample shows; `step` is that of the Gaussians, None after the last."""

    camera: str
    timestamp: str
    ref_camera: str
    ref_timestamp: str
    step: int | None = None
    way: Way = ""
    first: bool = True  # best reference of its target
    warped: tuple[str, ...] = ()  # cameras whose images are warped into it, the best first

    @property
    def name(self) -> str:
        """Name of its files: the plain one belongs to the first reference of final Gaussians.

        A camera is left out once by `cross`, and is a target only then.

        >>> PlannedSample("28", "000021", "16", "000021").name
        '000021_28'
        >>> PlannedSample("28", "000021", "4", "000033", step=200, first=False).name
        '000021_28_step200_ref_000033_4'
        >>> PlannedSample("28", "000021", "16", "000021", step=200, way="sparse").name
        '000021_28_sparse_step200'
        """
        way = f"_{self.way}" if self.way in ("sparse", "cycle") else ""
        step = "" if self.step is None else f"_step{self.step}"
        reference = "" if self.first else f"_ref_{self.ref_timestamp}_{self.ref_camera}"
        return f"{self.timestamp}_{self.camera}{way}{step}{reference}"


def plan_samples(
    timestamps: Sequence[str],
    targets: Mapping[str, Camera],
    sources: Mapping[str, Camera],
    config: PairsConfig,
    way: Way = "",
    ranked: Ranking | None = None,
) -> list[PlannedSample]:
    """Samples in a fixed order; a target without a reference has none.

    Args:
        timestamps: all timestamps of the scene, in order.
        targets: cameras that are rendered, by name.
        sources: cameras that references are taken from, in the same frame as the targets.
        config: strides, steps and references.
        way: how the Gaussians were trained.
        ranked: names of the references' cameras by target at a timestamp, best first; None: the
            nearest sources first.
    """
    samples = []
    for timestamp in timestamps[:: config.every]:
        times = reference_times(timestamps, timestamp, config.reference)
        if ranked is None:
            best = {name: nearest_cameras(one, sources, 0) for name, one in targets.items()}
        else:
            best = ranked(timestamp)
        for name in targets:
            # No camera is a reference of itself, as it would be in a cycle.
            others = [one for one in dict.fromkeys(best[name]) if one != name]
            chosen = others[: config.reference.cameras or None]
            references = [(ref, time) for time in times for ref in chosen]
            for step in (None, *config.steps):
                samples += [
                    PlannedSample(
                        name,
                        timestamp,
                        ref,
                        time,
                        step,
                        way,
                        first=rank == 0,
                        warped=tuple(others[: config.warped]),
                    )
                    for rank, (ref, time) in enumerate(references)
                ]
    return samples


def reference_times(
    timestamps: Sequence[str], timestamp: str, reference: ReferenceConfig
) -> list[str]:
    """Timestamps that references of a target are taken from, of those that the scene has.

    >>> reference_times("abcd", "b", ReferenceConfig(strategy="mixed", offset_frames=1))
    ['b', 'a', 'c']
    """
    k = reference.offset_frames
    offsets = {"same_time": (0,), "temporal": (-k, k), "mixed": (0, -k, k)}[reference.strategy]
    indices = [timestamps.index(timestamp) + offset for offset in offsets]
    return [timestamps[index] for index in indices if 0 <= index < len(timestamps)]


def select_cameras(
    wanted: Sequence[str], cameras: Iterable[str], where: str, role: str
) -> list[str]:
    """The wanted cameras of a role, in the scene's order.

    Raises UserError for a name that is no camera of this role.
    """
    known = list(cameras)
    for name in wanted:
        if name not in known:
            raise UserError(
                where,
                repr(name),
                expected=f"{role} cameras of the scene: {', '.join(known)}",
                hint=did_you_mean(name, known),
                fix=CHECK,
            )
    return [name for name in known if name in wanted]


def subsample(samples: Sequence[T], limit: int, seed: int) -> list[T]:
    """A random choice of `limit` samples, in their order; all where limit is 0 or not exceeded."""
    if limit == 0 or limit >= len(samples):
        return list(samples)
    indices = np.random.default_rng(seed).permutation(len(samples))[:limit]
    return [samples[index] for index in sorted(indices)]


def config_for_split(config: PairsConfig, split: str) -> PairsConfig:
    """`config` for a split: test samples are all targets, rendered and referenced as at inference.

    Every variant of the tuning data is therefore validated on the same test samples.
    """
    if split == "train":
        return config
    plain: dict[str, Any] = {"cameras": (), "leave_out": (), "steps": (), "max_pairs": 0}
    plain |= {"poses": config.test_poses, "reference": ReferenceConfig()}
    plain |= {"degradation": DegradationConfig()}
    return config.model_copy(update=plain)
