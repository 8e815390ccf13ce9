"""The dataset that a fixer is tuned on, as files and as tensors.

`dataset.json` is {"train": {id: {"image", "target_image", "ref_image", "prompt"}}, "test": {...}}
with paths relative to the root of the repository. Warped references, for a fixer that takes them,
lie beside the samples that stage `pairs` wrote (`index.warped_paths`). Both splits follow one rule
of working sizes: the network's skips need sides that halve evenly.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.run.errors import UserError, raise_all
from stages.run.files import read_json
from stages.run.plurals import first_few
from stages.samples.batches import seeded
from stages.samples.index import warped_paths
from stages.scenes.images import image_size, read_image, read_rgba, resize

_KEYS = {"image", "target_image", "ref_image", "prompt"}


@dataclass(frozen=True)
class SampleFiles:
    """One sample's files, all of one size (width, height) in px."""

    name: str
    image: Path
    target: Path
    reference: Path | None
    prompt: str
    size: tuple[int, int]
    warped: tuple[Path, ...] = ()  # references warped into the view, the best first

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of the sample."""
        paths = (self.image, self.target, self.reference, *self.warped)
        return tuple(path for path in paths if path is not None)


def read_split(path: Path, split: str) -> list[SampleFiles]:
    """Samples of `train` or `test`, in the file's order.

    Raises UserError that lists every missing image, every sample of unequal sizes and every
    unknown key, or says that the split is empty.
    """
    content = read_json(path)
    entries = content.get(split)
    if not isinstance(entries, Mapping) or not entries:
        raise UserError(
            path,
            f"no samples in `{split}`",
            expected=f"{split}: {{id: {{image: ...}}}}",
            fix="check study.tuning_scenes, study.internal_eval_scenes and `pairs:`, "
            "then `dvc repro manifest`",
        )
    samples = [_sample_files(path, split, name, entry) for name, entry in entries.items()]
    raise_all(one for one in samples if isinstance(one, UserError))
    return [one for one in samples if isinstance(one, SampleFiles)]


def common_prompt(samples: Iterable[SampleFiles], path: Path) -> str:
    """The one prompt of all samples. Raises UserError when they have several."""
    prompts = sorted({sample.prompt for sample in samples})
    if len(prompts) > 1:
        raise UserError(
            path,
            f"{len(prompts)} prompts: {first_few([*map(repr, prompts)])}",
            expected="one; a fixer keeps the embedding of one prompt",
        )
    return prompts[0]


class TuningDataset:
    """Samples at their working size, as tensors [3, H, W] in [0, 1].

    Files are decoded once as far as `cache_mib` of memory holds them, at 8 bits per channel. With
    `warped` the reference is that many of them, [K, 4, H, W]; absent ones are 0.
    """

    def __init__(
        self,
        samples: list[SampleFiles],
        resolution: int,
        multiple: int,
        cache_mib: int = 0,
        warped: int = 0,
    ) -> None:
        self.samples, self.warped = samples, warped
        self._rule = resolution, multiple
        self._cache: dict[Path, Tensor] = {}
        self._cache_bytes_left = cache_mib * 2**20

    def __len__(self) -> int:
        return len(self.samples)

    def size(self, index: int) -> tuple[int, int]:
        """Working size (width, height) of a sample, px."""
        return working_size(*self.samples[index].size, *self._rule)

    def load(self, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image, target and reference of one sample."""
        sample, size = self.samples[index], self.size(index)
        image, target = (self._read(path, size) for path in (sample.image, sample.target))
        if self.warped:
            return image, target, self._read_warped(sample, size)
        return image, target, self._read(sample.reference, size) if sample.reference else None

    def has_reference(self, index: int) -> bool:
        """Whether a sample has a reference of the kind that is loaded."""
        sample = self.samples[index]
        return bool(sample.warped) if self.warped else sample.reference is not None

    def order(self, seed: int, epoch: int) -> list[int]:
        """Indices of all samples in the order of an epoch, a permutation by the seed."""
        return torch.randperm(len(self), generator=seeded(seed, "order", epoch)).tolist()

    def size_notes(self) -> Iterator[str]:
        """A note on each image size that differs from its working size."""
        changed = {(sample.size, self.size(i)) for i, sample in enumerate(self.samples)}
        for (width, height), (new_width, new_height) in sorted(changed):
            if (width, height) != (new_width, new_height):
                rule = f"resolution {self._rule[0]}, multiples of {self._rule[1]}"
                new = f"{new_width}x{new_height}"
                yield f"{width}x{height} px images are processed at {new} ({rule})"

    def _read_warped(self, sample: SampleFiles, size: tuple[int, int]) -> Tensor | None:
        if not sample.warped:
            return None
        warped = [self._read(path, size, rgba=True) for path in sample.warped[: self.warped]]
        absent = torch.zeros_like(warped[0])
        return torch.stack([*warped, *[absent] * (self.warped - len(warped))])

    def _read(self, path: Path, size: tuple[int, int], *, rgba: bool = False) -> Tensor:
        levels = self._cache.get(path)
        if levels is None:
            image = (read_rgba if rgba else read_image)(path)
            pixels = np.rint(resize(image, *size) * 255).astype(np.uint8)
            levels = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
            if levels.numel() <= self._cache_bytes_left:
                self._cache_bytes_left -= levels.numel()
                self._cache[path] = levels
        return levels.float() / 255


def working_size(width: int, height: int, resolution: int, multiple: int) -> tuple[int, int]:
    """Size (width, height) in px at which an image is processed.

    The shorter side becomes `resolution` (0 keeps the image's own), the other keeps the aspect
    ratio; both then snap to the nearest multiple, so a side may change by half a multiple.

    >>> working_size(940, 1280, 320, 16), working_size(324, 332, 0, 16), working_size(5, 9, 0, 16)
    ((320, 432), (320, 336), (16, 16))
    """
    scale = resolution / min(width, height) if resolution else 1.0
    return snapped(scale * width, multiple), snapped(scale * height, multiple)


def snapped(length: float, multiple: int) -> int:
    """The nearest positive multiple; halves go up.

    >>> [snapped(length, 16) for length in (1, 300, 312, 320)]
    [16, 304, 320, 320]
    """
    return max(1, int(length / multiple + 0.5)) * multiple


def padded(length: int, multiple: int) -> int:
    """The smallest multiple that is not below the length.

    >>> [padded(length, 16) for length in (1, 16, 17)]
    [16, 16, 32]
    """
    return -(-length // multiple) * multiple


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _sample_files(where: Path, split: str, name: str, entry: Any) -> SampleFiles | UserError:
    place = f"{where}  {split}.{name}"
    if not isinstance(entry, Mapping) or not {"image", "target_image"} <= entry.keys() <= _KEYS:
        keys = ", ".join(entry) if isinstance(entry, Mapping) else repr(entry)
        return UserError(place, f"keys {keys}", expected=", ".join(sorted(_KEYS)))
    named = {key: entry[key] for key in sorted(_KEYS - {"prompt"}) if entry.get(key)}
    wrong = [key for key in ("image", "target_image", *named) if not _is_path(named.get(key))]
    if wrong:
        got, expected = repr(named.get(wrong[0])), "the path of an image"
        return UserError(
            f"{place}.{wrong[0]}", got, expected=expected, fix="run `dvc repro manifest`"
        )
    paths = {key: Path(path) for key, path in named.items()}
    sizes = {}
    for key, path in paths.items():
        try:
            sizes[key] = image_size(path)
        except UserError as error:
            return UserError(
                f"{place}.{key}",
                str(path),
                expected="an image",
                hint=error.got,
                fix="run `dvc repro pairs manifest`, or take the sample out",
            )
    warped = warped_paths(paths["image"])
    sizes |= {path.parent.name: image_size(path) for path in warped}
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{key} {width}x{height}" for key, (width, height) in sizes.items())
        return UserError(place, got, expected="one size in a sample", fix="run `dvc repro pairs`")
    return SampleFiles(
        name,
        paths["image"],
        paths["target_image"],
        paths.get("ref_image"),
        str(entry.get("prompt", "")),
        sizes["image"],
        tuple(warped),
    )
