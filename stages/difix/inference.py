"""Inference: images of any size through a fixer, at the size of the input.

Images are [H, W, 3] float in [0, 1], outputs too. References are such images of any size, or, for a
fixer with `spec.warped`, images [H, W, 4] warped into the view. The network needs sides that are
multiples of `difix.multiple`: an image is padded by reflection and cropped afterwards, or resized
there and back. Images larger than `difix.tile_px` are processed in overlapping tiles.

On a GPU the layers run fused (`gpu`). While a batch is computed, the next one is prepared and the
one before is copied to the CPU. `difix.mode` chooses throughput, in batches, or the latency of one
image, by a CUDA graph.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stages.difix.config import FixerConfig
from stages.difix.network.attention import KvCache
from stages.difix.network.model import Fixer
from stages.difix.network.precision import DTYPES, choose_device, choose_precision
from stages.run.errors import UserError
from stages.samples.batches import seeded, with_warped
from stages.samples.dataset import padded, working_size
from stages.scenes.config import ReferenceRule
from stages.scenes.images import Pixels, resize

if TYPE_CHECKING:
    from stages.difix.gpu.replays import Replays

SizePx = tuple[int, int]  # width, height


class _Outputs(NamedTuple):
    """A batch's outputs while they are copied to the CPU: complete after the event."""

    images: Tensor  # [B, H, W, 3]
    finite: Tensor
    event: torch.cuda.Event | None


class Runner:
    """A fixer ready for inference: LoRA merged, on its device, in its precision."""

    def __init__(self, fixer: Fixer, config: FixerConfig):
        """Raises UserError for params that the fixer or the machine does not support."""
        if config.multiple % fixer.spec.factor:
            raise UserError(
                "difix.multiple",
                str(config.multiple),
                expected=f"a multiple of {fixer.spec.factor}, by which this fixer's VAE shrinks",
            )
        if config.references > fixer.spec.references:
            raise UserError(
                "difix.references",
                str(config.references),
                expected=f"at most {fixer.spec.references}, as this fixer was trained with",
                fix=f"set difix.references: {fixer.spec.references}; a fixer that was trained with "
                "more says so as `references` in its fixer.json",
            )
        self.config, self.spec = config, fixer.spec
        self.device, why_device = choose_device(config.device, "difix.device")
        precision, why = choose_precision(config.precision, self.device, "difix.precision")
        self.dtype = DTYPES[precision]
        fixer.fold()
        # Channels last: a third faster on a CPU, and no copies for tensor cores.
        self.fixer = (
            fixer.to(self.device, self.dtype, memory_format=torch.channels_last)
            .eval()
            .requires_grad_(False)
        )
        if config.reference_attention != "stored":
            self.fixer.mixing = config.reference_attention
        self.forward = self._forward()
        self.uses_reference = fixer.spec.reference and config.reference == "use"
        how = f"up to {self.spec.warped} warped" if self.spec.warped else self.fixer.mixing
        reference = f"reference {how}" if self.uses_reference else "no reference"
        self.summary = (
            f"{self.device.type} ({why_device}), {precision} ({why}), {reference}, "
            f"latent {config.latent}"
        )

    @property
    def rule(self) -> ReferenceRule:
        """Which references the fixer is to be given, and how."""
        rule = self.config.rule
        if not self.spec.warped:
            return rule
        return rule._replace(count=self.spec.warped, warped=True)

    def _forward(self) -> "Fixer | Replays":
        """The function that computes a batch."""
        if self.device.type == "cpu":
            return self.fixer
        # Its kernels need triton, which is installed with CUDA only.
        from stages.difix.gpu.fused import fuse
        from stages.difix.gpu.replays import Replays

        fuse(self.fixer)
        # A whole batch takes the GPU longer than its kernels take the CPU to launch.
        return Replays(self.fixer) if self.config.mode == "latency" else self.fixer

    def fix(
        self,
        images: Sequence[Pixels],
        references: Sequence[Sequence[Pixels]] | None = None,
        grids: int = 1,
    ) -> list[Pixels]:
        """The fixed views of all images, each with its references.

        All have as many, unless they are warped: these may be fewer than the fixer takes.

        With several `grids`, each is the mean over passes in which image and references are shifted
        against the network's grid, and against the tiles, by equal shares of its period.

        Raises UserError when the fixer expects references and gets none, or when its output is not
        finite.
        """
        if grids == 1:
            return self._fix(images, references)
        total = [np.zeros_like(image) for image in images]
        for number in range(grids):
            shifts = [self._shift_px(image, number / grids) for image in images]
            moved = [_shifted(image, shift) for image, shift in zip(images, shifts, strict=True)]
            beside = None
            if references is not None:
                beside = [
                    [_shifted(one, shift) for one in some]
                    for some, shift in zip(references, shifts, strict=True)
                ]
            for sum_of, fixed, shift in zip(total, self._fix(moved, beside), shifts, strict=True):
                sum_of += fixed[shift:, shift:]
        return [sum_of / grids for sum_of in total]

    def _shift_px(self, image: Pixels, share: float) -> int:
        """A share of the grid's period in an image's own pixels."""
        resolution = self.config.resolution
        scale = resolution / min(image.shape[:2]) if resolution else 1.0
        return round(share * self.spec.grid_px / scale)

    @torch.inference_mode()
    def _fix(
        self, images: Sequence[Pixels], references: Sequence[Sequence[Pixels]] | None
    ) -> list[Pixels]:
        if self.uses_reference and references is None:
            raise UserError(
                "the fixer",
                "expects a reference and got none",
                fix="give one for each image, or set difix.reference: withhold",
            )
        fixed: list[Pixels | None] = [None] * len(images)
        pending: tuple[list[int], _Outputs] | None = None
        for indices, size in self._batches(images):
            chosen = [references[i] for i in indices] if self.uses_reference else None
            outputs = self._batch([images[i] for i in indices], chosen, size, indices[0])
            if pending:
                self._collect(*pending, images, fixed)
            pending = indices, outputs
        if pending:
            self._collect(*pending, images, fixed)
        assert all(one is not None for one in fixed), "an image was left out"
        return [one for one in fixed if one is not None]

    def _batches(self, images: Sequence[Pixels]) -> Iterator[tuple[list[int], SizePx]]:
        """Indices of the images of each batch, which have one working size."""
        sizes = [self.working_size(image.shape[1], image.shape[0]) for image in images]
        # A sampled latent depends on the image's index, not on the others of its batch.
        single = self.config.latent == "sample" or self.config.mode == "latency"
        limit = 1 if single else self.config.batch_size
        ordered = sorted(range(len(images)), key=lambda index: sizes[index])
        for size, group in groupby(ordered, key=lambda index: sizes[index]):
            indices = list(group)
            for start in range(0, len(indices), limit):
                yield indices[start : start + limit], size

    def working_size(self, width: int, height: int) -> SizePx:
        """Size at which an image is processed, px."""
        multiple = self.config.multiple
        if self.config.resolution or self.config.fit == "resize":
            return working_size(width, height, self.config.resolution, multiple)
        return padded(width, multiple), padded(height, multiple)

    def _batch(
        self,
        images: list[Pixels],
        references: list[Sequence[Pixels]] | None,
        size: SizePx,
        number: int,
    ) -> _Outputs:
        """Start to fix a batch; `number` is the index of its first image."""
        batch = torch.stack([self._prepared(image, size) for image in images])
        views = None
        if references is not None and self.spec.warped:
            views = torch.stack([self._prepared_warped(some, size) for some in references])
        elif references is not None:
            # A reference of another size is first resized to its image's.
            sizes = [(image.shape[1], image.shape[0]) for image in images]
            pairs = zip(references, sizes, strict=True)
            views = torch.stack(
                [
                    torch.stack([self._prepared(resize(one, *px), size) for one in some])
                    for some, px in pairs
                ]
            )
        generator = None
        if self.config.latent == "sample":
            generator = seeded(self.config.seed, "latent", number)
        output = self._tiled(batch, views, generator)
        return self._fetch(output.clamp(0, 1).permute(0, 2, 3, 1), output.isfinite().all())

    def _fetch(self, images: Tensor, finite: Tensor) -> _Outputs:
        """Start to copy a batch's outputs to the CPU."""
        if self.device.type == "cpu":
            return _Outputs(images, finite, None)
        on_cpu = torch.empty(images.shape, dtype=images.dtype, pin_memory=True)
        on_cpu.copy_(images.contiguous(), non_blocking=True)
        finite_on_cpu = torch.empty((), dtype=torch.bool, pin_memory=True)
        finite_on_cpu.copy_(finite, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return _Outputs(on_cpu, finite_on_cpu, event)

    def _collect(
        self,
        indices: list[int],
        outputs: _Outputs,
        images: Sequence[Pixels],
        fixed: list[Pixels | None],
    ) -> None:
        """Store a batch's outputs in `fixed`. Raises UserError when they are not finite."""
        if outputs.event:
            outputs.event.synchronize()
        if not outputs.finite:
            raise UserError(
                "the fixer",
                f"gave values that are not finite in {self.dtype}",
                fix="set difix.precision: bf16 or fp32",
            )
        for index, output in zip(indices, outputs.images, strict=True):
            fixed[index] = self._restored(output, images[index])

    def _prepared(self, image: Pixels, size: SizePx) -> Tensor:
        """An image at working size, [3, H, W] on the device."""
        width, height = size
        if self.config.resolution or self.config.fit == "resize":
            image = resize(image, width, height)
        tensor = torch.from_numpy(np.ascontiguousarray(image))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        tensor = tensor.permute(2, 0, 1)
        right, below = width - tensor.shape[2], height - tensor.shape[1]
        # Reflection cannot pad by more than the image's side.
        mode = "reflect" if right < tensor.shape[2] and below < tensor.shape[1] else "replicate"
        return F.pad(tensor[None], (0, right, 0, below), mode=mode)[0]

    def _prepared_warped(self, references: Sequence[Pixels], size: SizePx) -> Tensor:
        """A view's warped references at working size, [K, 4, H, W]; absent ones are 0."""
        count = self.spec.warped
        if len(references) > count:
            raise UserError("the fixer", f"{len(references)} references", expected=f"up to {count}")
        prepared = [self._prepared(one, size) for one in references]
        absent = torch.zeros(4, size[1], size[0], device=self.device)
        return torch.stack([*prepared, *[absent] * (count - len(prepared))])

    def _restored(self, output: Tensor, image: Pixels) -> Pixels:  # [H, W, 3]
        """An output as an image of its input's size."""
        height, width = image.shape[:2]
        pixels = output.numpy()
        if self.config.resolution or self.config.fit == "resize":
            return resize(pixels, width, height)
        return np.ascontiguousarray(pixels[:height, :width])

    def _tiled(
        self, batch: Tensor, references: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """Run a batch whole, or in tiles, each with the whole reference at the tile's size."""
        limit, overlap = self.config.tile_px, self.config.tile_overlap_px
        height, width = batch.shape[-2:]
        if not limit or max(height, width) <= limit:
            return self._run(batch, self._reference_input(references, generator), generator)
        tile = min(limit, height), min(limit, width)
        if references is not None and not self.spec.warped:
            flat = references.flatten(0, 1)
            flat = F.interpolate(flat, tile, mode="bilinear", antialias=True)
            references = flat.unflatten(0, references.shape[:2])
        reference = None if self.spec.warped else self._reference_input(references, generator)
        total = torch.zeros_like(batch)
        weights = torch.zeros_like(batch[:1, :1])
        ramp = feather(tile, overlap).to(batch)
        for top in tile_starts(height, tile[0], overlap):
            for left in tile_starts(width, tile[1], overlap):
                window = (..., slice(top, top + tile[0]), slice(left, left + tile[1]))
                beside = reference
                if references is not None and self.spec.warped:
                    beside = references[window]
                total[window] += ramp * self._run(batch[window], beside, generator)
                weights[window] += ramp
        return total / weights

    def _run(
        self, batch: Tensor, reference: Tensor | KvCache | None, generator: torch.Generator | None
    ) -> Tensor:
        images = batch[:, None]
        if isinstance(reference, dict):
            return self.fixer(images, reference, generator)
        if reference is not None and self.spec.warped:
            images = with_warped(images, reference)
        elif reference is not None:
            images = torch.cat([images, reference], dim=1)
        return (
            self.forward(images) if generator is None else self.fixer(images, generator=generator)
        )

    def _reference_input(
        self, references: Tensor | None, generator: torch.Generator | None
    ) -> Tensor | KvCache | None:
        """References, as a KV cache where they do not depend on the target.

        They are [B, V, 3, H, W], or warped [B, K, 4, H, W].
        """
        if references is None or self.spec.warped:
            return references
        one_way = self.fixer.mixing == "one_way"
        return self._kv_cache(references, generator) if one_way else references

    def _kv_cache(self, views: Tensor, generator: torch.Generator | None) -> KvCache:
        """The cache of a batch's references; equal references are computed once."""
        firsts = [
            next(j for j in range(i + 1) if torch.equal(views[i], views[j]))
            for i in range(len(views))
        ]
        unique = sorted(set(firsts))
        cache = self.fixer.reference_cache(views[unique], generator)
        indices = torch.tensor([unique.index(first) for first in firsts], device=views.device)
        return {layer: (key[indices], value[indices]) for layer, (key, value) in cache.items()}


def _shifted(image: Pixels, shift: int) -> Pixels:
    """An image [H, W, C] with `shift` more rows and columns, reflected, before its first."""
    return np.pad(image, ((shift, 0), (shift, 0), (0, 0)), mode="reflect")


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of the tiles along a side; neighbours share at least `overlap` px.

    >>> tile_starts(100, 48, 16), tile_starts(48, 48, 16)
    ([0, 32, 52], [0])
    """
    # A side no longer than a tile has one, whatever the overlap.
    return [*range(0, length - tile, max(tile - overlap, 1)), length - tile]


def feather(tile: tuple[int, int], overlap: int) -> Tensor:
    """Weights [h, w] of a tile's pixels: 1, falling over `overlap` px towards its border."""
    sides = []
    for length in tile:
        distance = torch.arange(length) + 0.5
        distance = torch.minimum(distance, length - distance)
        sides.append((distance / max(overlap, 1)).clamp(max=1))
    return sides[0][:, None] * sides[1]
