"""Fixing images: time and memory of both modes, and what a precision costs in exactness.

    python -m benchmarks.difix_infer [--sizes 512x512 576x1024] [--cases bf16:throughput ...]

Weights and pictures are random. `eager` is the network alone as torch runs it, images on the GPU
before and after, and `fused` the same with its layers joined; `difix_layers` has more such ways,
and with `+graph` each is replayed from a CUDA graph; all in batches, `strict` one by one. Warm-up
is what comes before the calls that are timed, compilation included. `latency` and
`throughput` are `Runner.fix` of `difix.mode`, from images in memory to images in memory; `latency`
one call for each image, `throughput` one call for all of them, in batches. Differences are from
`strict` (fp32 without TF32, eager): root mean square, over that of strict's output.
"""

import argparse
import itertools
import statistics
import time

import numpy as np
import torch

from benchmarks import difix_cases as cases
from benchmarks.difix_layers import kernels, use_layers
from benchmarks.machine import device_name
from stages.difix.config import FixerConfig
from stages.difix.gpu.replays import Replays
from stages.difix.inference import Runner
from stages.difix.network.model import Fixer
from stages.difix.network.precision import DTYPES
from stages.run.errors import UserError
from stages.scenes.images import Pixels

# Measured before on one H200 without a reference, eager; and what the throughput mode is to reach
# there, three times what its arithmetic takes at the rate of a large matrix product.
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
_COMPARED = 2  # images whose outputs are compared
HEADER = "{:>9}{:>6}{:>8}{:>16}{:>7}{:>10}{:>10}{:>10}{:>10}{:>12}"


def main() -> None:
    parser = cases.options(__doc__.splitlines()[0], CASES)
    parser.add_argument(
        "--sizes", nargs="+", default=["512x512", "576x1024"], help="height x width, px"
    )
    parser.add_argument(
        "--batch", nargs="+", type=int, default=[8], help="images at once, for throughput"
    )
    parser.add_argument("--repeats", type=int, default=3, help="calls that are timed")
    parser.add_argument("--mixing", choices=("stored", "mutual", "one_way"), default="stored")
    parser.add_argument("--views", nargs="+", type=int, choices=(1, 2), default=[1, 2])
    given = parser.parse_args()
    device = cases.device_of(given)
    settings = list(itertools.product(given.sizes, given.views))
    exact = strict_outputs(given, device, settings)
    rows = []
    for case in given.cases:
        precision, mode = case.split(":")
        for (size, views), row in rows_of(given, precision, mode, device, settings, exact):
            rows.append(row)
            print(line(row, size, views), flush=True)
            cases.write_rows(given.out, rows)
    print(f"\n{rows[0]['device']}, mixing {given.mixing}; differences of {_COMPARED} images")
    titles = ("px", "views", "", "", "batch", "ms/image", "slowest", "warm-up s", "peak GiB")
    print(HEADER.format(*titles, "difference"))
    for row in rows:
        print(line(row, row["size_px"], row["views"]))


def rows_of(
    given: argparse.Namespace,
    precision: str,
    mode: str,
    device: torch.device,
    settings: list[tuple[str, int]],
    exact: dict,
):
    """A row for each setting of one case."""
    cases.use_products(precision)
    for views in sorted({views for _, views in settings}):
        fixing = prepared(given, precision, mode, views, device)
        chosen = (one for one in settings if one[1] == views)
        for setting, batch in itertools.product(chosen, batches(given, precision, mode)):
            cases.forget_peak(device)
            case = precision, mode, *setting, batch
            with kernels(mode.removesuffix(GRAPH)):
                row = measure(given, fixing, *case, exact[setting], device)
            yield setting, row
        del fixing


def batches(given: argparse.Namespace, precision: str, mode: str) -> list[int]:
    """How many images a case takes at once."""
    if mode == LATENCY or (mode == EAGER and precision == cases.STRICT):
        return [1]
    return [max(given.batch)] if mode == THROUGHPUT else given.batch


def new_fixer(given: argparse.Namespace, device: torch.device) -> Fixer:
    """The same fixer every time, which changes what it sees."""
    fixer = cases.new_fixer(given.size, device)
    if fixer.spec.residual:
        # It starts from no change at all, which every precision gets right.
        with torch.no_grad():
            fixer.vae.decoder.conv_out.weight.fill_(_CHANGE)
    return fixer


def prepared(
    given: argparse.Namespace, precision: str, mode: str, views: int, device: torch.device
) -> "Runner | Network":
    """The fixer in a precision, as a mode calls it."""
    fixer = new_fixer(given, device)
    if mode not in (LATENCY, THROUGHPUT):
        return Network(given, fixer, precision, mode)
    config = FixerConfig(
        device=device.type,
        precision=cases.params_precision(precision),
        mode=mode,
        reference="use" if views == 2 else "withhold",
        reference_attention=given.mixing,
        batch_size=max(given.batch),
    )
    return Runner(fixer, config)


class Network:
    """The network called as it is."""

    def __init__(self, given: argparse.Namespace, fixer: Fixer, precision: str, mode: str):
        fixer.fold()
        if given.mixing != "stored":
            fixer.mixing = given.mixing
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
    def fix(self, images: list[Pixels], references: list[Pixels] | None) -> list[Pixels]:
        """Outputs one by one, as `Runner.fix` gives them."""
        found = []
        for index, image in enumerate(images):
            seen = [[image], *([] if references is None else [[references[index]]])]
            output = self.call(on_device(seen, self.fixer)).clamp(0, 1)
            found.append(output[0].permute(1, 2, 0).cpu().numpy())
        return found


def on_device(seen: list[list[Pixels]], fixer: Fixer) -> torch.Tensor:
    """Images, and maybe references, as a fixer takes them, [B, V, 3, H, W]."""
    views = [torch.from_numpy(np.stack(one)).permute(0, 3, 1, 2) for one in seen]
    return torch.stack(views, dim=1).to(fixer.prompt.device)


def strict_outputs(
    given: argparse.Namespace, device: torch.device, settings: list[tuple[str, int]]
) -> dict[tuple[str, int], list[Pixels]]:
    """What fp32 without TF32 makes of each setting's images, one at a time."""
    cases.use_products(cases.STRICT)
    fixing = Network(given, new_fixer(given, device), cases.STRICT, EAGER)
    return {setting: fixing.fix(*shown(*setting, _COMPARED)) for setting in settings}


def shown(size: str, views: int, count: int) -> tuple[list[Pixels], list[Pixels] | None]:
    """Images and references [H, W, 3]."""
    height, width = map(int, size.split("x"))
    seen = cases.pictures(count, height, width)
    images, references = (
        [np.ascontiguousarray(one.permute(1, 2, 0).numpy()) for one in batch]
        for batch in (seen.image, seen.reference)
    )
    return images, references if views == 2 else None


def measure(
    given: argparse.Namespace,
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
    images, references = shown(size, views, max(given.batch))
    times_ms: list[float] = []
    note, outputs, warmed = None, [], None
    try:
        if isinstance(fixing, Network):
            seen = [images[:batch], *([] if references is None else [references[:batch]])]
            entering = on_device(seen, fixing.fixer)
            calls, warmed = fixing.timed(entering, given.warmup, given.repeats)
            times_ms = [one / batch for one in calls]
        elif mode == LATENCY:
            times_ms = timed_calls(fixing, images, references, given, count=1)
        else:
            # Several batches, of which one is made ready while another is computed.
            times_ms = timed_calls(fixing, images, references, given, count=4 * batch)
        outputs = fixing.fix(*shown(size, views, _COMPARED))
    except UserError as error:
        note = error.got
    peak, name = cases.peak_gib(device), device_name(device.type)
    anchored = given.size == "sd-turbo" and "H200" in name and precision == "bf16"
    of_anchor = anchored and mode == EAGER and views == batch == 1
    told = "reference" if views == 2 else "no reference"
    return {
        "name": f"DiFix inference, {given.size}, {size} px, {told}, {precision}, {mode}",
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
        "mixing": given.mixing,
        "slowest_ms": round(max(times_ms), 2) if times_ms else None,
        "warmup_s": None if warmed is None else round(warmed, 1),
        "peak_gib": None if peak is None else round(peak, 2),
        "relative_difference": difference(outputs, exact) if outputs else None,
        "note": note,
    }


def timed_calls(
    runner: Runner,
    images: list[Pixels],
    references: list[Pixels] | None,
    given: argparse.Namespace,
    count: int,
) -> list[float]:
    """Milliseconds an image of calls with `count` images."""
    places = [index % len(images) for index in range(count)]
    images = [images[index] for index in places]
    references = None if references is None else [references[index] for index in places]
    times_ms = []
    for repeat in range(given.warmup + given.repeats):
        begin = time.perf_counter()
        runner.fix(images, references)  # on the CPU, so all work is done
        if repeat >= given.warmup:
            times_ms.append(1e3 * (time.perf_counter() - begin) / count)
    return times_ms


def difference(outputs: list[Pixels], exact: list[Pixels]) -> float:
    """Root mean square difference, over the root mean square of what is exact."""
    wanted = np.stack(exact).astype(np.float64)
    return float(np.linalg.norm(np.stack(outputs) - wanted) / np.linalg.norm(wanted))


def line(row: cases.Row, size: str, views: int) -> str:
    """A row of the table."""
    apart = row["relative_difference"]
    told = HEADER.format(
        size,
        views,
        row["precision"],
        row["mode"],
        row["batch"],
        cases.shown(row["value"], 2),
        cases.shown(row["slowest_ms"], 2),
        cases.shown(row["warmup_s"]),
        cases.shown(row["peak_gib"], 2),
        "-" if apart is None else f"{apart:.1e}",
    )
    return f"{told}  {row['note']}" if row["note"] else told


if __name__ == "__main__":
    main()
