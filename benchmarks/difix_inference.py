"""Fixing images with a reference: time, memory, and what a precision costs in exactness.

    python -m benchmarks.difix_inference [--sizes 512x512 576x1024] [--batches 1 4]

Weights and pictures are random. A time is that of `Runner.fix`, from images in memory to images in
memory, divided by the batch. Differences are of values in [0, 1] from `strict`, fp32 without TF32,
over the standard deviation of strict's output.
"""

import argparse
import itertools
import statistics
import time

import numpy as np
import torch

from benchmarks import difix_cases as cases
from stages.difix.config import FixerConfig
from stages.difix.infer import Runner
from stages.run.errors import UserError
from stages.scenes.images import Pixels

# Measured before on one H200 without a reference, ms; targets are three times the arithmetic of
# bf16 there, which a batch is to reach.
ANCHORS_MS = {
    ("512x512", "fp32"): 292, ("512x512", "bf16"): 62,
    ("576x1024", "fp32"): 408, ("576x1024", "bf16"): 105,
}  # fmt: skip
TARGETS_MS = {("512x512", "bf16"): 16.8, ("576x1024", "bf16"): 39.9}
_CHANGE = 0.02
HEADER = "{:>9}{:>8}{:>7}{:>10}{:>10}{:>10}{:>10}{:>10}"


def main() -> None:
    parser = cases.options(__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", nargs="+", default=["512x512", "576x1024"], help="height x width, px"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--repeats", type=int, default=10, help="calls that are timed")
    parser.add_argument("--mixing", choices=("stored", "mutual", "one_way"), default="stored")
    parser.add_argument("--no-reference", action="store_true")
    given = parser.parse_args()
    device = cases.device_of(given)
    rows, exact = [], strict_outputs(given, device)
    print(HEADER.format(*titles()))
    for precision in given.precisions:
        cases.forget_peak(device)
        runner = ready(given, precision, device)
        for size, batch in itertools.product(given.sizes, given.batches):
            rows.append(measure(given, runner, precision, size, batch, exact[size]))
            print(line(rows[-1]), flush=True)
        del runner
    print(f"{rows[0]['device']}, {rows[0]['views']} view(s) an image, mixing {rows[0]['mixing']}")
    cases.write_rows(given.out, rows)


def titles() -> tuple[str, ...]:
    """Heads of the columns."""
    return "px", "", "batch", "ms/image", "slowest", "peak GiB", "max diff", "mean diff"


def ready(given: argparse.Namespace, precision: str, device: torch.device) -> Runner:
    """The same fixer in a precision."""
    cases.use_products(precision)
    config = FixerConfig(
        device=device.type, precision=cases.params_precision(precision),
        reference="withhold" if given.no_reference else "use", reference_attention=given.mixing,
        batch_size=max(given.batches),
    )  # fmt: skip
    fixer = cases.new_fixer(given.size, device)
    if fixer.spec.residual:
        # It starts from no change at all, which every precision gets right.
        with torch.no_grad():
            fixer.vae.decoder.conv_out.weight.fill_(_CHANGE)
    runner = Runner(fixer, config)
    cases.ordered(runner.fixer, given)
    return runner


def strict_outputs(given: argparse.Namespace, device: torch.device) -> dict[str, list[Pixels]]:
    """What fp32 without TF32 makes of each size's images, one at a time."""
    cases.forget_peak(device)
    runner = ready(given, cases.STRICT, device)
    count = max(given.batches)
    return {
        size: [runner.fix(*views(size, count, index))[0] for index in range(count)]
        for size in given.sizes
    }


def views(size: str, count: int, only: int | None = None) -> tuple[list[Pixels], list[Pixels]]:
    """Images and references [H, W, 3], all of `count` or one of them."""
    height, width = map(int, size.split("x"))
    seen = cases.pictures(count, height, width)
    chosen = slice(None) if only is None else slice(only, only + 1)
    images, references = (
        [np.ascontiguousarray(one.permute(1, 2, 0).numpy()) for one in batch[chosen]]
        for batch in (seen.image, seen.reference)
    )
    return images, references


def measure(
    given: argparse.Namespace, runner: Runner, precision: str, size: str, batch: int,
    exact: list[Pixels],
) -> cases.Row:  # fmt: skip
    """Time one case."""
    images, references = views(size, max(given.batches))
    images, references = images[:batch], references[:batch]
    device = runner.device
    cases.forget_peak(device)
    times_ms: list[float] = []
    note, outputs = None, []
    try:
        for repeat in range(given.warmup + given.repeats):
            begin = time.perf_counter()
            outputs = runner.fix(images, references)  # on the CPU, so all work is done
            if repeat >= given.warmup:
                times_ms.append(1e3 * (time.perf_counter() - begin) / batch)
    except UserError as error:
        note = error.got
    largest, mean = differences(outputs, exact)
    peak, name = cases.peak_gib(device), cases.device_name(device)
    anchored = given.size == "sd-turbo" and "H200" in name
    key = size, precision
    return {
        "name": f"DiFix inference, {given.size}, {size} px, {precision}, batch {batch}",
        "device": name,
        "value": round(statistics.median(times_ms), 2) if times_ms else None,
        "unit": "ms an image",
        "anchor": ANCHORS_MS.get(key) if anchored and given.no_reference and batch == 1 else None,
        "target": TARGETS_MS.get(key) if anchored and batch > 1 else None,
        "size_px": size,
        "precision": precision,
        "batch": batch,
        "contiguous": given.contiguous,
        "views": 2 if runner.uses_reference else 1,
        "mixing": runner.fixer.mixing,
        "slowest_ms": round(max(times_ms), 2) if times_ms else None,
        "peak_gib": None if peak is None else round(peak, 2),
        "max_difference": largest,
        "mean_difference": mean,
        "note": note,
    }


def differences(outputs: list[Pixels], exact: list[Pixels]) -> tuple[float | None, float | None]:
    """Largest and mean difference, over the standard deviation of what is exact."""
    if not outputs:
        return None, None
    wanted = np.stack(exact[: len(outputs)]).astype(np.float64)
    distance = np.abs(np.stack(outputs) - wanted) / wanted.std()
    return float(distance.max()), float(distance.mean())


def line(row: cases.Row) -> str:
    """A row of the table."""
    told = HEADER.format(
        row["size_px"], row["precision"], row["batch"], cases.shown(row["value"]),
        cases.shown(row["slowest_ms"]), cases.shown(row["peak_gib"], 2),
        *(
            "-" if row[key] is None else f"{row[key]:.1e}"
            for key in ("max_difference", "mean_difference")
        ),
    )  # fmt: skip
    return f"{told}  {row['note']}" if row["note"] else told


if __name__ == "__main__":
    main()
