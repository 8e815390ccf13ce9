"""Fixing images: time and memory of both modes, and the error of each precision.

    python -m benchmarks.difix_infer [--sizes 512x512 576x1024] [--cases bf16:throughput ...]

Weights and images are random. `eager` is the network alone as torch runs it, with inputs and
outputs on the GPU, and `fused` the same with fused layers; `difix_layers` has more such layers, and
`+graph` replays each from a CUDA graph; all in batches, `strict` one by one. The warm-up is
everything before the timed calls, compilation included. `latency` and `throughput` are `Runner.fix`
of `difix.mode`, from images in memory to images in memory; `latency` with one call per image,
`throughput` with one call for all of them, in batches. Differences are from `strict` (fp32 without
TF32, eager): root mean square, relative to that of the output of `strict`.
"""

import argparse
import itertools
import statistics
import time

import numpy as np
import torch

from benchmarks import difix_cases as cases
from benchmarks.command_line import launch
from benchmarks.difix_layers import kernels, use_layers
from benchmarks.machine import device_name
from stages.difix.config import FixerConfig
from stages.difix.gpu.replays import Replays
from stages.difix.inference import Runner
from stages.difix.network.model import Fixer
from stages.difix.network.precision import DTYPES
from stages.run.errors import UserError
from stages.scenes.images import Pixels

# Anchors: earlier results of one H200, eager, without a reference. Targets: for mode throughput
# there, three times its arithmetic's time at the rate of a large matrix product.
ANCHORS_MS = {
    ("512x512", "fp32"): 292,
    ("512x512", "bf16"): 62,
    ("576x1024", "fp32"): 408,
    ("576x1024", "bf16"): 105,
}
TARGETS_MS = {"512x512": 17.0, "576x1024": 40.0}
EAGER, FUSED, LATENCY, THROUGHPUT, GRAPH = "eager", "fused", "latency", "throughput", "+graph"
CASES = ("strict:eager", "bf16:eager", "bf16:fused", "bf16:latency", "bf16:throughput")
CASES += ("fp16:throughput",)
_CHANGE = 0.02
_COMPARED = 2  # images
References = list[list[Pixels]] | None  # of each image
HEADER = "{:>9}{:>6}{:>8}{:>16}{:>7}{:>10}{:>10}{:>10}{:>10}{:>12}"


def main() -> None:
    parser = cases.options(__doc__.splitlines()[0], CASES)
    parser.add_argument(
        "--sizes", nargs="+", default=["512x512", "576x1024"], help="height x width, px"
    )
    parser.add_argument(
        "--batch", nargs="+", type=int, default=[8], help="images per batch, for throughput"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed calls")
    parser.add_argument("--mixing", choices=("stored", "mutual", "one_way"), default="stored")
    parser.add_argument("--views", nargs="+", type=int, choices=(1, 2), default=[1, 2])
    args = parser.parse_args()
    device = cases.device_of(args)
    settings = list(itertools.product(args.sizes, args.views))
    exact = strict_outputs(args, device, settings)
    rows = []
    for case in args.cases:
        precision, mode = case.split(":")
        for (size, views), row in rows_of(args, precision, mode, device, settings, exact):
            rows.append(row)
            print(line(row, size, views), flush=True)
            cases.write_rows(args.out, rows)
    print(f"\n{rows[0]['device']}, mixing {args.mixing}; differences of {_COMPARED} images")
    titles = ("px", "views", "", "", "batch", "ms/image", "slowest", "warm-up s", "peak GiB")
    print(HEADER.format(*titles, "difference"))
    for row in rows:
        print(line(row, row["size_px"], row["views"]))


def rows_of(
    args: argparse.Namespace,
    precision: str,
    mode: str,
    device: torch.device,
    settings: list[tuple[str, int]],
    exact: dict,
):
    """Yield each setting of one case and its row of results."""
    cases.set_tf32(precision)
    for views in sorted({views for _, views in settings}):
        fixing = prepared(args, precision, mode, views, device)
        with_views = (setting for setting in settings if setting[1] == views)
        for setting, batch in itertools.product(with_views, batches(args, precision, mode)):
            cases.reset_peak(device)
            case = precision, mode, *setting, batch
            with kernels(mode.removesuffix(GRAPH)):
                row = measure(args, fixing, *case, exact[setting], device)
            yield setting, row
        del fixing


def batches(args: argparse.Namespace, precision: str, mode: str) -> list[int]:
    """Batch sizes of a case."""
    if mode == LATENCY or (mode == EAGER and precision == cases.STRICT):
        return [1]
    return [max(args.batch)] if mode == THROUGHPUT else args.batch


def new_fixer(args: argparse.Namespace, device: torch.device) -> Fixer:
    """A fixer that changes its input, the same at every call."""
    fixer = cases.new_fixer(args.size, device)
    if fixer.spec.residual:
        # It is initialised to no change at all, which is exact in every precision.
        with torch.no_grad():
            fixer.vae.decoder.conv_out.weight.fill_(_CHANGE)
    return fixer


def prepared(
    args: argparse.Namespace, precision: str, mode: str, views: int, device: torch.device
) -> "Runner | Network":
    """The fixer in a precision and mode."""
    fixer = new_fixer(args, device)
    if mode not in (LATENCY, THROUGHPUT):
        return Network(args, fixer, precision, mode)
    config = FixerConfig(
        device=device.type,
        precision=cases.params_precision(precision),
        mode=mode,
        reference="use" if views == 2 else "withhold",
        reference_attention=args.mixing,
        batch_size=max(args.batch),
    )
    return Runner(fixer, config)


class Network:
    """Direct calls of the network."""

    def __init__(self, args: argparse.Namespace, fixer: Fixer, precision: str, mode: str):
        fixer.fold()
        if args.mixing != "stored":
            fixer.mixing = args.mixing
        dtype = DTYPES[cases.params_precision(precision)]
        self.fixer = fixer.to(dtype=dtype, memory_format=torch.channels_last)
        self.fixer.eval().requires_grad_(False)
        use_layers(self.fixer, mode.removesuffix(GRAPH))
        self.call = Replays(self.fixer) if mode.endswith(GRAPH) else self.fixer

    @torch.inference_mode()
    def timed(self, images: torch.Tensor, warmup: int, repeats: int) -> tuple[list[float], float]:
        """Milliseconds of each call, and seconds of the warm-up."""
        begin = time.perf_counter()
        for _ in range(warmup):
            self.call(images)
        cases.wait(images.device)
        warmed = time.perf_counter() - begin
        clock = cases.Clock(images.device)
        clock.mark()
        for _ in range(repeats):
            self.call(images)
            clock.mark()
        return clock.gaps_ms(), warmed

    @torch.inference_mode()
    def fix(self, images: list[Pixels], references: References) -> list[Pixels]:
        """Outputs one by one, as `Runner.fix` gives them."""
        outputs = []
        for index, image in enumerate(images):
            views = [[image], *([] if references is None else [references[index]])]
            output = self.call(on_device(views, self.fixer)).clamp(0, 1)
            outputs.append(output[0].permute(1, 2, 0).cpu().numpy())
        return outputs


def on_device(views: list[list[Pixels]], fixer: Fixer) -> torch.Tensor:
    """Images, and references if there are any, as input of a fixer, [B, V, 3, H, W]."""
    batches = [torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) for images in views]
    return torch.stack(batches, dim=1).to(fixer.prompt.device)


def strict_outputs(
    args: argparse.Namespace, device: torch.device, settings: list[tuple[str, int]]
) -> dict[tuple[str, int], list[Pixels]]:
    """Outputs of fp32 without TF32 for the images of each setting, one at a time."""
    cases.set_tf32(cases.STRICT)
    fixing = Network(args, new_fixer(args, device), cases.STRICT, EAGER)
    return {setting: fixing.fix(*inputs(*setting, _COMPARED)) for setting in settings}


def inputs(size: str, views: int, count: int) -> tuple[list[Pixels], References]:
    """Images [H, W, 3] and a reference of each."""
    height, width = map(int, size.split("x"))
    samples = cases.random_images(count, height, width)
    images, references = (
        [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in batch]
        for batch in (samples.image, samples.reference)
    )
    return images, [[one] for one in references] if views == 2 else None


def measure(
    args: argparse.Namespace,
    fixing: "Runner | Network",
    precision: str,
    mode: str,
    size: str,
    views: int,
    batch: int,
    exact: list[Pixels],
    device: torch.device,
) -> cases.Row:
    """Time one case."""
    images, references = inputs(size, views, max(args.batch))
    times_ms: list[float] = []
    note, outputs, warmed = None, [], None
    try:
        if isinstance(fixing, Network):
            beside = [] if references is None else [[one for (one,) in references[:batch]]]
            batched = on_device([images[:batch], *beside], fixing.fixer)
            calls_ms, warmed = fixing.timed(batched, args.warmup, args.repeats)
            times_ms = [call_ms / batch for call_ms in calls_ms]
        elif mode == LATENCY:
            times_ms = timed_calls(fixing, images, references, args, count=1)
        else:
            # Several batches, so that one is prepared while another is computed.
            times_ms = timed_calls(fixing, images, references, args, count=4 * batch)
        outputs = fixing.fix(*inputs(size, views, _COMPARED))
    except UserError as error:
        note = error.got
    peak, name = cases.peak_gib(device), device_name(device.type)
    anchored = args.size == "sd-turbo" and "H200" in name and precision == "bf16"
    of_anchor = anchored and mode == EAGER and views == batch == 1
    condition = "reference" if views == 2 else "no reference"
    return {
        "name": f"DiFix inference, {args.size}, {size} px, {condition}, {precision}, {mode}",
        "device": name,
        "value": round(statistics.median(times_ms), 2) if times_ms else None,
        "unit": "ms an image",
        "anchor": ANCHORS_MS.get((size, precision)) if of_anchor else None,
        "target": TARGETS_MS.get(size) if anchored and mode in (FUSED, THROUGHPUT) else None,
        "size_px": size,
        "precision": precision,
        "mode": mode,
        "batch": batch,
        "views": views,
        "mixing": args.mixing,
        "slowest_ms": round(max(times_ms), 2) if times_ms else None,
        "warmup_s": None if warmed is None else round(warmed, 1),
        "peak_gib": None if peak is None else round(peak, 2),
        "relative_difference": difference(outputs, exact) if outputs else None,
        "note": note,
    }


def timed_calls(
    runner: Runner,
    images: list[Pixels],
    references: References,
    args: argparse.Namespace,
    count: int,
) -> list[float]:
    """Milliseconds per image of calls with `count` images."""
    places = [index % len(images) for index in range(count)]
    images = [images[index] for index in places]
    references = None if references is None else [references[index] for index in places]
    times_ms = []
    for repeat in range(args.warmup + args.repeats):
        begin = time.perf_counter()
        runner.fix(images, references)  # outputs are on the CPU, so all work is done
        if repeat >= args.warmup:
            times_ms.append(1e3 * (time.perf_counter() - begin) / count)
    return times_ms


def difference(outputs: list[Pixels], exact: list[Pixels]) -> float:
    """Root mean square of the difference, relative to that of the exact outputs."""
    expected = np.stack(exact).astype(np.float64)
    return float(np.linalg.norm(np.stack(outputs) - expected) / np.linalg.norm(expected))


def line(row: cases.Row, size: str, views: int) -> str:
    """A row of the table."""
    error = row["relative_difference"]
    text = HEADER.format(
        size,
        views,
        row["precision"],
        row["mode"],
        row["batch"],
        cases.formatted(row["value"], 2),
        cases.formatted(row["slowest_ms"], 2),
        cases.formatted(row["warmup_s"]),
        cases.formatted(row["peak_gib"], 2),
        "-" if error is None else f"{error:.1e}",
    )
    return f"{text}  {row['note']}" if row["note"] else text


if __name__ == "__main__":
    launch(main)
