"""Training samples as an endless stream of micro-batches: shuffled, cropped and mirrored."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stages.run.errors import UserError
from stages.run.plurals import counted
from stages.samples.batches import Batch, sample_number, seeded
from stages.samples.dataset import TuningDataset
from stages.scenes.config import WARPED_CHANNELS


class StreamRuntime(Protocol):
    """How samples are loaded."""

    loader_workers: int


class StreamConfig(Protocol):
    """Params of a tuning run that the stream reads."""

    seed: int
    batch_size: int
    crop_px: int
    flip: bool
    missing_reference: str

    @property
    def runtime(self) -> StreamRuntime:
        """How samples are loaded."""
        ...


class SampleStream:
    """The training split of a tuning run; a `batches.BatchSource`.

    A sample depends on the seed and its number in the stream alone, not on the number of loader
    processes.
    """

    def __init__(
        self, dataset: TuningDataset, config: StreamConfig, multiple: int, with_reference: bool
    ):
        self.dataset, self.config, self.with_reference = dataset, config, with_reference
        if config.crop_px % multiple:
            raise UserError(
                "tune.crop_px", str(config.crop_px), expected=f"a multiple of {multiple}, or 0"
            )
        self._check_sizes()
        self._check_references()

    def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
        """Micro-batches of one process, see `batches.BatchSource`."""
        loader = DataLoader(
            _Samples(self),
            batch_sampler=_SampleNumbers(start, rank, processes, self.config.batch_size),
            num_workers=self.config.runtime.loader_workers,
            collate_fn=_stacked,
            pin_memory=torch.cuda.is_available(),
            # Its own: loaders must not advance torch's global generator.
            generator=torch.Generator(),
        )
        yield from loader

    def sample(self, number: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image, target and reference of a sample, cropped and mirrored alike."""
        epoch, position = divmod(number, len(self.dataset))
        index = self.dataset.order(self.config.seed, epoch)[position]
        image, target, reference = self.dataset.load(index)
        if not self.with_reference:
            reference = None
        elif reference is None:  # else refused at the start
            absent = torch.zeros(self.dataset.warped, WARPED_CHANNELS, *image.shape[1:])
            reference = absent if self.dataset.warped else image
        generator = seeded(self.config.seed, "augment", number)
        window = _window(image.shape[-2:], self.config.crop_px, generator)
        mirror = self.config.flip and bool(torch.rand((), generator=generator) < 0.5)
        crops = [None if x is None else x[window] for x in (image, target, reference)]
        image, target, reference = (x.flip(-1) if mirror and x is not None else x for x in crops)
        assert image is not None, "only the reference may be absent"
        assert target is not None, "only the reference may be absent"
        return image, target, reference

    def _check_sizes(self) -> None:
        sizes = {self.dataset.size(index) for index in range(len(self.dataset))}
        crop = self.config.crop_px
        if self.config.batch_size > 1 and len(sizes) > 1 and not crop:
            got = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
            raise UserError(
                "tune.batch_size",
                f"{self.config.batch_size} images of unequal sizes: {got}",
                expected="one size, or crop_px above 0",
                fix="set tune.crop_px or batch_size: 1",
            )
        shortest = min(min(size) for size in sizes)
        if crop > shortest:
            expected = f"at most {shortest}, the shortest side"
            raise UserError("tune.crop_px", str(crop), expected=expected)

    def _check_references(self) -> None:
        dataset = self.dataset
        missing = [
            sample.name
            for index, sample in enumerate(dataset.samples)
            if not dataset.has_reference(index)
        ]
        if self.with_reference and missing and self.config.missing_reference == "error":
            raise UserError(
                "tune.missing_reference",
                f"{counted(len(missing), 'sample')} without one, such as {missing[0]}",
                expected="warped images beside every sample, for a fixer that takes them"
                if dataset.warped
                else "a ref_image in every sample, for a fixer that expects one",
                fix=f"for samples of scenes set pairs.warped: {dataset.warped} and run `dvc repro "
                "pairs`; imports cannot have any: tune.missing_reference: own_render tunes on them "
                "without references"
                if dataset.warped
                else "set it to own_render, or tune a fixer without reference (base.reference: no)",
            )


class _Samples(Dataset):
    """The samples of a stream by number."""

    def __init__(self, stream: SampleStream):
        self.stream = stream

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.stream.sample(number)


class _SampleNumbers:
    """Numbers of the samples of each micro-batch of one process."""

    def __init__(self, start: int, rank: int, processes: int, batch_size: int):
        self.start, self.share = start, (rank, processes, batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        micro = self.start
        while True:
            size = self.share[-1]
            yield [sample_number(micro, *self.share, index) for index in range(size)]
            micro += 1


def _window(shape: torch.Size, crop: int, generator: torch.Generator) -> tuple:
    if not crop:
        return (...,)
    top, left = (int(torch.randint(side - crop + 1, (), generator=generator)) for side in shape)
    return ..., slice(top, top + crop), slice(left, left + crop)


def _stacked(samples: list[tuple[Tensor, Tensor, Tensor | None]]) -> Batch:
    images, targets, references = zip(*samples, strict=True)
    stacked = None if references[0] is None else torch.stack(references)
    return Batch(torch.stack(images), torch.stack(targets), stacked)
