"""Samples from procedural worlds as files, in the form of stages `pairs` and `manifest`.

`dataset.json` is DiFix's, as of `samples.dataset`; its paths are absolute, so that any loader finds
the images. Warped references lie beside each `image`, as of `samples.index`.
"""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from stages.difix.pretraining.worlds_stream import WorldsStream
from stages.quality.metrics.psnr import psnr
from stages.run.files import whole_folder, write_json
from stages.samples.index import warped_kind
from stages.samples.worlds.triples import Triples
from stages.scenes.images import write_png

DATASET, INFO = "dataset.json", "worlds.json"


def write_worlds(stream: WorldsStream, folder: Path, prompt: str) -> dict[str, float]:
    """Write all samples of a stream, and its held-out ones as split `test`.

    Args:
        stream: of samples.
        folder: for the results; an earlier result there is replaced.
        prompt: text of every sample.

    Returns scalars by name, which worlds.json has too, beside the recipe of the worlds: `<split>`,
    the number of its samples, and `<split>_psnr`, the mean of their renders, dB.
    """
    dataset, numbers = {}, {}
    splits = {"train": stream.groups(), "test": iter([stream.held_out()])}
    with whole_folder(folder) as scratch:
        for split, groups in splits.items():
            entries, errors = {}, []
            for name, sample in _samples(split, groups):
                images = _images(sample)
                for kind, image in images.items():
                    path = scratch / kind / f"{name}.png"
                    path.parent.mkdir(exist_ok=True)
                    write_png(path, image.movedim(0, -1).numpy())
                named = ("image", "target_image", "ref_image")
                at = {kind: folder.absolute() / kind / f"{name}.png" for kind in named}
                entries[name] = {kind: str(path) for kind, path in at.items()}
                entries[name]["prompt"] = prompt
                errors.append(psnr(images["image"][None], images["target_image"][None]).item())
            dataset[split] = entries
            numbers |= {split: len(entries), f"{split}_psnr": round(sum(errors) / len(errors), 4)}
        write_json(scratch / DATASET, dataset)
        recipe = json.loads(stream.config.worlds.recipe())
        write_json(scratch / INFO, {"worlds": recipe, **numbers})
    return numbers


def _samples(split: str, groups: Iterator[Triples]) -> Iterator[tuple[str, Triples]]:
    """Names and samples, one at a time, on the CPU."""
    numbers = count()
    for triples in groups:
        for one in zip(*(part.cpu() for part in triples), strict=True):
            yield f"{split}_{next(numbers):06d}", Triples(*one)


def _images(sample: Triples) -> dict[str, Tensor]:
    """Images of one sample by kind, each [C, H, W] in [0, 1]."""
    images = {
        "image": sample.image,
        "target_image": sample.target,
        "ref_image": sample.reference,
    }
    images |= {warped_kind(number): one for number, one in enumerate(sample.warped, 1)}
    return {kind: image.to(torch.float32) / 255 for kind, image in images.items()}
