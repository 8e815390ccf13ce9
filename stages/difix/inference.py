"""Images of any size through a fixer, and back at the size that they came in.

Images are [H, W, 3] float in [0, 1], outputs too. The network wants sides that are multiples of
`difix.multiple`: an image is padded by reflection and cropped afterwards, or resampled there and
back. What is larger than `difix.tile_px` goes through in overlapping tiles.

On a GPU the layers run fused (`gpu`), and while a batch is computed the next one is made ready and
the one before is fetched. `difix.mode` says what counts: images a second, in batches, or the time
until one image is there, by a replayed recording.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stages.difix.config import FixerConfig
from stages.difix.network.attention import Memory
from stages.difix.network.model import Fixer
from stages.difix.network.precision import DTYPES, choose_device, choose_precision
from stages.run.errors import UserError
from stages.samples.batches import seeded
from stages.samples.sizes import padded, working_size
from stages.scenes.images import Pixels, resize

if TYPE_CHECKING:
    from stages.difix.gpu.replays import Replays

Size = tuple[int, int]  # width, height in px


class _Fetched(NamedTuple):
    """A batch's outputs on their way to the CPU: complete when the event has happened."""

    images: Tensor  # [B, H, W, 3]
    finite: Tensor
    event: torch.cuda.Event | None


class Runner:
    """A fixer made ready: LoRA folded, on its device, in its precision."""

    def __init__(self, fixer: Fixer, config: FixerConfig):
        """Raises UserError when the params ask for what the fixer or the machine cannot do."""
        if config.multiple % fixer.spec.factor:
            raise UserError(
                "difix.multiple", str(config.multiple),
                expected=f"a multiple of {fixer.spec.factor}, by which this fixer's VAE shrinks",
            )  # fmt: skip
        self.config, self.spec = config, fixer.spec
        self.device, why_device = choose_device(config.device, "difix.device")
        precision, why = choose_precision(config.precision, self.device, "difix.precision")
        self.dtype = DTYPES[precision]
        fixer.fold()
        # Channels last: a third faster on a CPU, and what tensor cores take without copies.
        self.fixer = (
            fixer.to(self.device, self.dtype, memory_format=torch.channels_last)
            .eval()
            .requires_grad_(False)
        )
        if config.reference_attention != "stored":
            self.fixer.mixing = config.reference_attention
        self.call = self._called()
        self.uses_reference = fixer.spec.reference and config.reference == "use"
        seen = f"reference {self.fixer.mixing}" if self.uses_reference else "no reference"
        self.summary = (
            f"{self.device.type} ({why_device}), {precision} ({why}), {seen}, "
            f"latent {config.latent}"
        )

    def _called(self) -> "Fixer | Replays":
        """What computes a batch."""
        if self.device.type == "cpu":
            return self.fixer
        # Kernels need triton, which is where CUDA is.
        from stages.difix.gpu.fused import fuse
        from stages.difix.gpu.replays import Replays

        fuse(self.fixer)
        # A batch keeps the GPU busy for longer than the CPU takes to launch its kernels.
        return Replays(self.fixer) if self.config.mode == "latency" else self.fixer

    @torch.inference_mode()
    def fix(
        self, images: Sequence[Pixels], references: Sequence[Pixels] | None = None
    ) -> list[Pixels]:
        """Every image as its photograph might look; `references` go with the images in order.

        Raises UserError when the fixer expects references and gets none, or when its output is not
        finite.
        """
        if self.uses_reference and references is None:
            raise UserError(
                "the fixer", "expects a reference and got none",
                fix="give one for each image, or set difix.reference: withhold",
            )  # fmt: skip
        fixed: list[Pixels | None] = [None] * len(images)
        before: tuple[list[int], _Fetched] | None = None
        for chosen, size in self._batches(images):
            seen = [references[i] for i in chosen] if self.uses_reference else None
            told = self._batch([images[i] for i in chosen], seen, size, chosen[0])
            if before:
                self._collect(*before, images, fixed)
            before = chosen, told
        if before:
            self._collect(*before, images, fixed)
        assert all(one is not None for one in fixed), "an image was left out"
        return [one for one in fixed if one is not None]

    def _batches(self, images: Sequence[Pixels]) -> Iterator[tuple[list[int], Size]]:
        """Indices of images of one working size that go through together."""
        sizes = [self.working_size(image.shape[1], image.shape[0]) for image in images]
        # Drawn latents depend on an image's place, not on what shares its batch.
        alone = self.config.latent == "sample" or self.config.mode == "latency"
        limit = 1 if alone else self.config.batch_size
        ordered = sorted(range(len(images)), key=lambda index: sizes[index])
        for size, group in groupby(ordered, key=lambda index: sizes[index]):
            indices = list(group)
            for start in range(0, len(indices), limit):
                yield indices[start : start + limit], size

    def working_size(self, width: int, height: int) -> Size:
        """Size at which an image is worked on, px."""
        multiple = self.config.multiple
        if self.config.resolution or self.config.fit == "resize":
            return working_size(width, height, self.config.resolution, multiple)
        return padded(width, multiple), padded(height, multiple)

    def _batch(
        self, images: list[Pixels], references: list[Pixels] | None, size: Size, number: int
    ) -> _Fetched:
        """Fixed images at working size, float32."""
        batch = torch.stack([self._prepared(image, size) for image in images])
        seen = None
        if references is not None:
            # A reference of another size is brought to its image's before anything else.
            sizes = [(image.shape[1], image.shape[0]) for image in images]
            pairs = zip(references, sizes, strict=True)
            seen = torch.stack([self._prepared(resize(one, *px), size) for one, px in pairs])
        generator = None
        if self.config.latent == "sample":
            generator = seeded(self.config.seed, "latent", number)
        output = self._tiled(batch, seen, generator)
        return self._fetch(output.clamp(0, 1).permute(0, 2, 3, 1), output.isfinite().all())

    def _fetch(self, images: Tensor, finite: Tensor) -> _Fetched:
        """Send a batch's outputs on their way to the CPU."""
        if self.device.type == "cpu":
            return _Fetched(images, finite, None)
        onto = torch.empty(images.shape, dtype=images.dtype, pin_memory=True)
        onto.copy_(images.contiguous(), non_blocking=True)
        told = torch.empty((), dtype=torch.bool, pin_memory=True)
        told.copy_(finite, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return _Fetched(onto, told, event)

    def _collect(
        self, chosen: list[int], outputs: _Fetched, images: Sequence[Pixels],
        fixed: list[Pixels | None],
    ) -> None:  # fmt: skip
        """Put a batch's outputs in their places. Raises UserError when they are not finite."""
        if outputs.event:
            outputs.event.synchronize()
        if not outputs.finite:
            raise UserError(
                "the fixer", f"gave values that are not finite in {self.dtype}",
                fix="set difix.precision: bf16 or fp32",
            )  # fmt: skip
        for index, output in zip(chosen, outputs.images, strict=True):
            fixed[index] = self._restored(output, images[index])

    def _prepared(self, image: Pixels, size: Size) -> Tensor:
        """An image at working size, [3, H, W] on the device."""
        width, height = size
        if self.config.resolution or self.config.fit == "resize":
            image = resize(image, width, height)
        tensor = torch.from_numpy(np.ascontiguousarray(image))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        tensor = tensor.permute(2, 0, 1)
        right, below = width - tensor.shape[2], height - tensor.shape[1]
        # Reflection cannot add more than the image has.
        mode = "reflect" if right < tensor.shape[2] and below < tensor.shape[1] else "replicate"
        return F.pad(tensor[None], (0, right, 0, below), mode=mode)[0]

    def _restored(self, output: Tensor, image: Pixels) -> Pixels:  # [H, W, 3]
        """An output as an image of the size that its input came in."""
        height, width = image.shape[:2]
        pixels = output.numpy()
        if self.config.resolution or self.config.fit == "resize":
            return resize(pixels, width, height)
        return np.ascontiguousarray(pixels[:height, :width])

    def _tiled(
        self, batch: Tensor, references: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """Run a batch whole, or in tiles that each see the whole reference, made smaller."""
        limit, overlap = self.config.tile_px, self.config.tile_overlap_px
        height, width = batch.shape[-2:]
        if not limit or max(height, width) <= limit:
            return self._run(batch, self._seen(references, generator), generator)
        tile = min(limit, height), min(limit, width)
        if references is not None:
            references = F.interpolate(references, tile, mode="bilinear", antialias=True)
        seen = self._seen(references, generator)
        total = torch.zeros_like(batch)
        weights = torch.zeros_like(batch[:1, :1])
        ramp = feather(tile, overlap).to(batch)
        for top in tile_starts(height, tile[0], overlap):
            for left in tile_starts(width, tile[1], overlap):
                window = (..., slice(top, top + tile[0]), slice(left, left + tile[1]))
                total[window] += ramp * self._run(batch[window], seen, generator)
                weights[window] += ramp
        return total / weights

    def _run(
        self, batch: Tensor, seen: Tensor | Memory | None, generator: torch.Generator | None
    ) -> Tensor:
        images = batch[:, None]
        if isinstance(seen, dict):
            return self.fixer(images, seen, generator)
        images = images if seen is None else torch.cat([images, seen], dim=1)
        return self.call(images) if generator is None else self.fixer(images, generator=generator)

    def _seen(
        self, references: Tensor | None, generator: torch.Generator | None
    ) -> Tensor | Memory | None:
        """References as views, or what targets need of them where that stands by itself."""
        if references is None:
            return None
        views = references[:, None]
        return self._memory(views, generator) if self.fixer.mixing == "one_way" else views

    def _memory(self, views: Tensor, generator: torch.Generator | None) -> Memory:
        """What targets need of their references; equal references are looked at once."""
        firsts = [
            next(j for j in range(i + 1) if torch.equal(views[i], views[j]))
            for i in range(len(views))
        ]
        unique = sorted(set(firsts))
        memory = self.fixer.remember(views[unique], generator)
        places = torch.tensor([unique.index(first) for first in firsts], device=views.device)
        return {layer: (key[places], value[places]) for layer, (key, value) in memory.items()}


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side, so that neighbours share at least `overlap` px.

    >>> tile_starts(100, 48, 16), tile_starts(48, 48, 16)
    ([0, 32, 52], [0])
    """
    # A side no longer than its tile has one, whatever the overlap.
    return [*range(0, length - tile, max(tile - overlap, 1)), length - tile]


def feather(tile: tuple[int, int], overlap: int) -> Tensor:
    """Weights [h, w] of a tile's pixels: 1 inside, falling over `overlap` px towards its border."""
    sides = []
    for length in tile:
        distance = torch.arange(length) + 0.5
        distance = torch.minimum(distance, length - distance)
        sides.append((distance / max(overlap, 1)).clamp(max=1))
    return sides[0][:, None] * sides[1]
