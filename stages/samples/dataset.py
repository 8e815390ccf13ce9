"""Tuning data in DiFix's own form: triples of a render, its photograph and another view's.

`dataset.json` is {"train": {id: {"image", "target_image", "ref_image", "prompt"}}, "test": {...}}
with paths relative to the root of the repository. Both splits are worked on at one size rule.
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
from stages.samples.batches import seeded
from stages.samples.sizes import working_size
from stages.scenes.images import image_size, read_image, resize

SPLITS = ("train", "test")
_KEYS = {"image", "target_image", "ref_image", "prompt"}


@dataclass(frozen=True)
class SampleFiles:
    """One sample's files; `size` (width, height) in px is that of all of them."""

    name: str
    image: Path
    target: Path
    reference: Path | None
    prompt: str
    size: tuple[int, int]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that it has."""
        found = (self.image, self.target, self.reference)
        return tuple(path for path in found if path is not None)


def read_split(path: Path, split: str) -> list[SampleFiles]:
    """Samples of `train` or `test`, in the file's order.

    Raises UserError that lists every missing image, every triple of unequal sizes and every
    unknown key, or says that the split is empty.
    """
    content = read_json(path)
    entries = content.get(split)
    if not isinstance(entries, Mapping) or not entries:
        raise UserError(
            path, f"no samples in `{split}`", expected=f"{split}: {{id: {{image: ...}}}}",
            fix="check study.tuning_scenes, study.internal_eval_scenes and `pairs:`, "
            "then `dvc repro manifest`",
        )  # fmt: skip
    found = [_triple(path, split, name, entry) for name, entry in entries.items()]
    raise_all(one for one in found if isinstance(one, UserError))
    return [one for one in found if isinstance(one, SampleFiles)]


def common_prompt(triples: Iterable[SampleFiles], path: Path) -> str:
    """The one prompt of all samples. Raises UserError when they have several."""
    prompts = sorted({triple.prompt for triple in triples})
    if len(prompts) > 1:
        raise UserError(
            path, f"{len(prompts)} prompts: {', '.join(map(repr, prompts[:3]))}",
            expected="one; a fixer keeps the embedding of one prompt",
        )  # fmt: skip
    return prompts[0]


class Pairs:
    """Samples at their working size, as tensors [3, H, W] in [0, 1].

    A file is decoded once: what fits in `cache_mib` stays in memory, at 8 bits a channel.
    """

    def __init__(
        self, triples: list[SampleFiles], resolution: int, multiple: int, cache_mib: int = 0
    ) -> None:
        self.triples = triples
        self._rule = resolution, multiple
        self._cache: dict[Path, Tensor] = {}
        self._room = cache_mib * 2**20

    def __len__(self) -> int:
        return len(self.triples)

    def size(self, index: int) -> tuple[int, int]:
        """Working size (width, height) of a sample, px."""
        return working_size(*self.triples[index].size, *self._rule)

    def load(self, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image, target and reference of one sample."""
        triple, size = self.triples[index], self.size(index)
        paths = (triple.image, triple.target, triple.reference)
        image, target, reference = (self._read(path, size) if path else None for path in paths)
        assert image is not None, "only the reference may be absent"
        assert target is not None, "only the reference may be absent"
        return image, target, reference

    def order(self, seed: int, epoch: int) -> list[int]:
        """Indices of all samples in the order of an epoch: a permutation that the seed decides."""
        return torch.randperm(len(self), generator=seeded(seed, "order", epoch)).tolist()

    def size_notes(self) -> Iterator[str]:
        """What is to be said of sizes that are not the files' own."""
        changed = {(triple.size, self.size(i)) for i, triple in enumerate(self.triples)}
        for (width, height), (new_width, new_height) in sorted(changed):
            if (width, height) != (new_width, new_height):
                rule = f"resolution {self._rule[0]}, multiples of {self._rule[1]}"
                new = f"{new_width}x{new_height}"
                yield f"{width}x{height} px images are worked on at {new} ({rule})"

    def _read(self, path: Path, size: tuple[int, int]) -> Tensor:
        levels = self._cache.get(path)
        if levels is None:
            pixels = np.rint(resize(read_image(path), *size) * 255).astype(np.uint8)
            levels = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
            if levels.numel() <= self._room:
                self._room -= levels.numel()
                self._cache[path] = levels
        return levels.float() / 255


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _triple(where: Path, split: str, name: str, entry: Any) -> SampleFiles | UserError:
    place = f"{where}  {split}.{name}"
    if not isinstance(entry, Mapping) or not {"image", "target_image"} <= entry.keys() <= _KEYS:
        keys = ", ".join(entry) if isinstance(entry, Mapping) else repr(entry)
        return UserError(place, f"keys {keys}", expected=", ".join(sorted(_KEYS)))
    given = {key: entry[key] for key in sorted(_KEYS - {"prompt"}) if entry.get(key)}
    odd = [key for key in ("image", "target_image", *given) if not _is_path(given.get(key))]
    if odd:
        told, expected = repr(given.get(odd[0])), "the path of an image"
        return UserError(
            f"{place}.{odd[0]}", told, expected=expected, fix="run `dvc repro manifest`"
        )
    paths = {key: Path(path) for key, path in given.items()}
    sizes = {}
    for key, path in paths.items():
        try:
            sizes[key] = image_size(path)
        except UserError as error:
            return UserError(
                f"{place}.{key}", str(path), expected="an image", hint=error.got,
                fix="run `dvc repro pairs manifest`, or take the sample out",
            )  # fmt: skip
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{key} {width}x{height}" for key, (width, height) in sizes.items())
        return UserError(place, told, expected="one size in a triple", fix="run `dvc repro pairs`")
    return SampleFiles(
        name,
        paths["image"],
        paths["target_image"],
        paths.get("ref_image"),
        str(entry.get("prompt", "")),
        sizes["image"],
    )
