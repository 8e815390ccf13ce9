"""What the shipped fixer does to real captures of few views, to the demo's views, and its cost.

    python -m benchmarks.fixer_quality [--captures FOLDER ...] [--data data] [--views 3 6]
        [--px 320] [--steps N] [--work FOLDER] [--out FILE]

Captures are folders of photographs of one static scene, and sequences in Hi4D's raw layout with
their own poses; without the option, those in `$SPLATFIX_TEST_ASSETS/data`. Of each, 3 and 6 views
(`--views`) train Gaussians by params.yaml on images of at most `--px` px, and all others are held
out; where one view is left, each is held out in turn. `--data` has the demo's scenes after `dvc
repro`; only tuning and internal-eval scenes are read, since these rows may lead to choices. Without
it they are left out. Rows are means over views:

render                      the plain Gaussians
fixed                       by `post`, untuned, with the references of use
references withheld         the same fixer without any
another ... references      with the images of another capture or scene in their place
fixed, warps as in training without the plane sweep that refines the depth

The last rows time one view of 192x256 px with all its references on one thread. `--work` keeps
poses, Gaussians and images, and poses are not estimated again.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import fixer_captures, fixer_views
from benchmarks.command_line import launch
from benchmarks.machine import processor
from stages.difix.applied import AppliedFixer
from stages.difix.base_fixer import untuned
from stages.difix.config import BaseConfig, FixerConfig
from stages.difix.weights.folders import write_folder
from stages.quality.config import EvaluateConfig, WeightsConfig
from stages.quality.evaluation import Measures, Meter
from stages.quality.metrics.weights import collect
from stages.run.checkpoint import Checkpoint
from stages.run.files import whole_folder, write_json
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig

Row = dict[str, Any]
MEASURES = ("psnr", "ssim", "lpips")
MAX_SECONDS = 1.0  # of one view of 192x256 px
MOST_LOST_DB = 0.1  # that fixing may cost
_SIZE = 192, 256
_REPEATS = 5


def main() -> None:
    """Print the tables and, with `--out`, write their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captures", type=Path, nargs="*", default=known_captures())
    parser.add_argument("--data", type=Path)
    parser.add_argument("--views", type=int, nargs="+", default=[3, 6])
    parser.add_argument("--px", type=int, default=320)
    parser.add_argument("--steps", type=int, default=0, help="instead of train.max_steps")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with nullcontext(args.work) if args.work else tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        meter, fixers = prepared(work)
        rows: list[Row] = []
        print(line({"case": "case", "method": "method"} | {key: key for key in MEASURES}))
        for row in _rows(args, work, meter, *fixers):
            rows.append(row)
            print(line(row), flush=True)
        cost = measured_cost(work / "base")
    print(
        f"one view of {_SIZE[0]}x{_SIZE[1]} px, one thread: {cost['seconds']:.2f} s "
        f"(at most {MAX_SECONDS:g}), peak memory of the process {cost['peak_mib']:.0f} MiB"
    )
    for verdict in verdicts(rows):
        print(verdict)
    if args.out:
        write_json(args.out, {"processor": processor(), "px": args.px, "rows": rows, "cost": cost})


def known_captures() -> list[Path]:
    """Captures in the test assets; none where they are unset."""
    assets = os.environ.get("SPLATFIX_TEST_ASSETS")
    return sorted(path for path in Path(assets, "data").iterdir()) if assets else []


def prepared(work: Path) -> tuple[Meter, tuple[AppliedFixer, AppliedFixer]]:
    """A meter with LPIPS, and the untuned fixer with its references and without, below `work`."""
    params, weights, base = Params.read(), work / "weights", work / "base"
    for stale in (weights, base, work / "runs"):
        shutil.rmtree(stale, ignore_errors=True)
    with whole_folder(weights) as folder:
        collect(params.section("weights", WeightsConfig), folder)
    config = params.section("base", BaseConfig)
    with tempfile.TemporaryDirectory() as scratch, whole_folder(base) as folder:
        checkpoint = Checkpoint("base", "fixer_quality", config.recipe())
        fixer, text = untuned(config, weights, checkpoint, Path(scratch))
        write_folder(fixer, folder, text)
    inference = params.section("difix", FixerConfig)
    withheld = inference.model_copy(update={"reference": "withhold"})
    fixers = AppliedFixer.read(base, inference), AppliedFixer.read(base, withheld)
    return Meter.build(params.section("evaluate", EvaluateConfig), weights), fixers


def _rows(
    args: argparse.Namespace, work: Path, meter: Meter, fixer: AppliedFixer, withheld: AppliedFixer
) -> Iterator[Row]:
    yield from capture_rows(args, work, meter, fixer, withheld)
    if args.data:
        study = Params.read().section("study", StudyConfig)
        scenes = [*study.tuning_scenes, *study.internal_eval_scenes]
        yield from scene_rows(scenes, args.data, meter, fixer, withheld)


def capture_rows(
    args: argparse.Namespace, work: Path, meter: Meter, fixer: AppliedFixer, withheld: AppliedFixer
) -> Iterator[Row]:
    """Rows of the captures, by number of training views."""
    datasets = [fixer_captures.dataset_of(folder, work) for folder in args.captures]
    names = [folder.resolve().name for folder in args.captures]
    results: dict[tuple[str, int], list[fixer_captures.Trained]] = {}
    for name, dataset in zip(names, datasets, strict=True):
        for count in args.views:
            results[name, count] = [
                fixer_captures.trained(
                    dataset, fold, _run(work, name, count, number), args.px, meter, args.steps
                )
                for number, fold in enumerate(fixer_captures.folds_of(dataset, count))
            ]
    for (name, count), folds in results.items():
        # Images of the next capture that could be trained on as many views.
        others = [key for key in results if key[0] != name and results[key]]
        found: dict[str, list[Measures]] = {}
        for number, one in enumerate(folds):
            own = one.training
            found.setdefault("render", []).append(one.views.means)
            kinds = {"fixed": (fixer, own), "references withheld": (withheld, own)}
            if others:
                lent = results[min(others, key=lambda key: key[1] != count)][0]
                borrowing = fixer_captures.Borrowing(one, lent)
                kinds["another capture's references"] = fixer, borrowing
            for method, (applied, training) in kinds.items():
                written = _run(work, name, count, number) / method.replace(" ", "_")
                means = fixer_captures.fixed(one, training, applied, meter, written)
                found.setdefault(method, []).append(means)
        yield from _means(f"{name}, {count} views", found)


def scene_rows(
    scenes: Sequence[str], data: Path, meter: Meter, fixer: AppliedFixer, withheld: AppliedFixer
) -> Iterator[Row]:
    """Rows of the target views of all scenes together."""
    by_scene = [
        list(fixer_views.targets_of(scene, data, fixer.fix, fixer.rule)) for scene in scenes
    ]
    found: dict[str, list[Measures]] = {}
    for index, timestamps in enumerate(by_scene):
        other = by_scene[(index + 1) % len(by_scene)][0].trained
        for views in timestamps:
            for name, make in fixer_views.variants(fixer.fix, withheld.fix).items():
                measured = views.measured(make(views, other))
                found.setdefault(name, []).extend(map(meter.measure, measured))
    yield from _means(f"demo, {len(scenes)} scenes", found)


def _means(case: str, found: dict[str, list[Measures]]) -> Iterator[Row]:
    """One row for each method; means over views, of which a measure may have several."""
    for method, measures in found.items():
        numbers = [one.get("views", 1) for one in measures]
        row: Row = {"case": case, "method": method, "views": sum(numbers)}
        for key in MEASURES:
            values = [one[key] for one in measures]
            known = None not in values
            row[key] = round(float(np.average(values, weights=numbers)), 4) if known else None
        yield row


def measured_cost(base: Path) -> Row:
    """Seconds of one view on one thread, and the peak memory of a process that fixes it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(one_view, (base,))


def one_view(base: Path) -> Row:
    """Fix a view of noise several times on one thread of a CPU; see `measured_cost`."""
    torch.set_num_threads(1)
    config = Params.read().section("difix", FixerConfig).model_copy(update={"device": "cpu"})
    fixer = AppliedFixer.read(base, config)
    image, references = fixer_views.random_view(*_SIZE, max(fixer.rule.count, 1))
    seconds = []
    for _ in range(_REPEATS):
        begin = time.process_time()  # of one thread, so that other processes do not count
        fixer.fix([image], [references])
        seconds.append(time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(statistics.median(seconds), 3), "peak_mib": round(peak)}


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """Per case, whether fixing bettered LPIPS and kept PSNR."""
    renders = {row["case"]: row for row in rows if row["method"] == "render"}
    for row in rows:
        if row["method"] != "fixed":
            continue
        gain = row["psnr"] - renders[row["case"]]["psnr"]
        plain, lpips = renders[row["case"]]["lpips"], row["lpips"]
        better = "unknown" if lpips is None else "better" if lpips < plain else "worse"
        kept = "kept" if gain >= -MOST_LOST_DB else "lost"
        yield f"{row['case']}: LPIPS {better}, PSNR {kept} ({gain:+.2f} dB)"


def line(row: Row) -> str:
    """A row of the table."""
    values = [row[key] for key in MEASURES]
    texts = [f"{one:.4f}" if isinstance(one, float) else str(one) for one in values]
    return f"{row['case']:<28}{row['method']:<30}" + "".join(f"{text:>10}" for text in texts)


def _run(work: Path, name: str, count: int, number: int) -> Path:
    return work / "runs" / name / f"{count}_views_{number}"


if __name__ == "__main__":
    launch(main)
