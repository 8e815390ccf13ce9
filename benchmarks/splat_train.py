r"""One scene from points to Gaussians: time and quality, beside another trainer on the same data.

    python -m benchmarks.splat_train [--steps 7000] [--recipes default seed] [--seeds 42 43]
        [--data FOLDER [FOLDER ...] | --photographed] [--every 8 [--rotate]] [--gaussians N]
        [--variant NAME KEY=VALUE ...] [--rasteriser own] [--device cpu] [--out FILE]
        [--trainer "python -m benchmarks.plain_trainer {data} {result} --steps {steps} \
            --seed {seed}"]

50 synthetic images of 540x960 px along an arc, every eighth held out, 13,800 sparse points; or the
undistorted images (images/) and the text models (sparse/0/) of real captures, each of one size.
Recipes are paired with the first one by capture and seed; with --rotate a seed also says which
views are held out. `budget` is the default held at N Gaussians that grow until 4/5 of the steps,
with opacities halved and Adam's moments forgotten at times until then, and `fewer` the same at
0.4 N; without --gaussians N is what `default`, which has to come first, had in the mean of the same
capture. A variant is the first recipe with other params of `train:`, such as
`--variant halved strategy.halve_every=500`.

The second trainer's command line gets the folder of the dataset in COLMAP's layout, a folder for
its results, the number of steps and a seed; it writes stats/val_step<N>.json there. If it writes
stats/train_step<N>_rank0.json too, its own clock counts, as with gsplat's simple_trainer. If it
reports `psnr_moved`, that compares with our quality by a recipe that learns poses.
Times and memory are of the steps alone: not of reading images, building kernels, or measuring.
Qualities can be compared on a CPU too: `--device cpu --size 135x240 --steps 1500 --points 6000`
takes half a minute a training, and the plain trainer takes --device cpu.
"""

import argparse
import gc
import itertools
import shlex
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from benchmarks import captured_images
from benchmarks import splat_cases as cases
from benchmarks.command_line import at_least, launch, size
from benchmarks.recipes import BUDGETS, RECIPES
from stages.run.files import read_json
from stages.splat.config import LEAST_GAUSSIANS, TrainConfig
from stages.splat.training.trainer import Trainer

# Measured on one H200 by gsplat 1.5.3's simple_trainer on plain made images of this number and
# size, seconds for 7000 steps; and the targets there.
ANCHORS_S = {"default": 76.2, "seed": 99.8}
TARGETS_S = {"default": 19.0, "seed": 25.0}
# Keys of `train:` that the command line sets, and by what.
_OPTIONS = {"seed": "--seeds", "max_steps": "--steps", "backend": "--device"}
_STAND_IN = 100_000  # Gaussians, where their number is not known yet


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=at_least(1), default=7000)
    parser.add_argument(
        "--recipes", nargs="+", choices=[*RECIPES, *BUDGETS], default=["default", "seed"]
    )
    parser.add_argument(
        "--schedule", type=at_least(1), help="steps that rates are planned for, if more"
    )
    parser.add_argument("--views", type=at_least(2), default=50)
    parser.add_argument("--size", type=size, default="540x960", help="width x height, px")
    parser.add_argument(
        "--points",
        type=at_least(LEAST_GAUSSIANS),
        default=captured_images.POINTS,
        help="sparse points to start from",
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", help="real captures instead, in COLMAP's layout"
    )
    parser.add_argument(
        "--photographed", action="store_true", help="made images with noise, poses with errors"
    )
    parser.add_argument("--every", type=at_least(2), default=8, help="every n-th view is held out")
    parser.add_argument(
        "--rotate",
        action="store_true",
        help="each seed holds out other views",
    )
    parser.add_argument(
        "--gaussians",
        type=at_least(LEAST_GAUSSIANS),
        help="the limit of growth (max_gaussians) of each recipe; of `fewer`, 0.4 of it",
    )
    parser.add_argument(
        "--variant",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="the first recipe with other params; may be repeated",
    )
    parser.add_argument(
        "--rasteriser", choices=("own", "gsplat"), default="own", help="of our trainer"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--trainer", help="a second trainer's command line")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="one training each")
    parser.add_argument("--out", type=Path)
    return parser


def main() -> None:
    args = (parser := options()).parse_args()
    for fault in faults(args):
        parser.error(fault)
    if args.device == "cuda":
        cases.use_gpu("give --device cpu")
    rows = []
    for data in args.data or [None]:
        for row in trained(captured(data, args), args):
            made = "photographed" if args.photographed else "made images"
            rows.append(row | {"data": str(data) if data else made})
            cases.show(rows[-1:])
            cases.write_rows(args.out, rows)  # the next may run into a time limit
    cases.show(rows)
    for line in summaries(rows):
        print(line)


def faults(args: argparse.Namespace) -> Iterator[str]:
    """What trainings would fail by, found before the first of them."""
    counted = [name for name in args.recipes if name in BUDGETS]
    if counted and not args.gaussians and args.recipes[0] != "default":
        yield f"{', '.join(counted)}: put default before them, or give --gaussians"
    for name, count in Counter(args.recipes).items():
        if count > 1:
            yield f"--recipes: {name} is named {count} times"
    for name, count in Counter(name for name, *_ in args.variant).items():
        if name in {*RECIPES, *BUDGETS}:
            yield f"--variant {name}: a recipe has this name"
        if count > 1:
            yield f"--variant {name}: named {count} times"
    for name, *changes in args.variant:
        if not changes:
            yield f"--variant {name}: no KEY=VALUE"
    for name, seed in itertools.product(names(args), args.seeds):
        try:
            config = recipe(name, seed, args, counts=[_STAND_IN])
        except ValueError as error:
            yield str(error)
        else:
            if config.strategy.kind == "mcmc" and args.device == "cpu":
                yield f"--variant {name}: strategy.kind=mcmc needs a GPU"
    for folder in args.data or ():
        for missing in captured_images.missing(folder):
            yield f"--data {folder}: no {missing}"
    if args.rotate and not args.data and args.views < args.every:
        yield f"--rotate: {args.views} views are fewer than --every {args.every}"
    try:
        second_command(args.trainer or "", Path(), Path(), args.steps, 0)
    except (ValueError, LookupError) as error:
        yield f"--trainer: {error!r}"


def names(args: argparse.Namespace) -> list[str]:
    """Of all recipes, those of variants last."""
    return [*args.recipes, *(name for name, *_ in args.variant)]


def captured(data: Path | None, args: argparse.Namespace) -> captured_images.Capture:
    """The capture of a folder, or made images; `args` then describe it."""
    if data is None:
        width, height = map(int, args.size.split("x"))
        made = captured_images.phone(args.views, width, height, args.device, args.points)
        return captured_images.photographed(made) if args.photographed else made
    capture = captured_images.read(data)
    args.views, args.points = len(capture.cameras), len(capture.points)
    args.size = f"{capture.cameras[0].width}x{capture.cameras[0].height}"
    return capture


def summaries(rows: list[cases.Row]) -> Iterator[str]:
    """Lines on every kind of training of a capture: its seeds, and pairs with the first kind."""
    first = rows[0]["name"]
    kinds: dict[tuple[str, str], dict[int, cases.Row]] = {}
    for row in rows:
        kinds.setdefault((row["data"], row["name"]), {})[row["seed"]] = row
    for (data, name), mine in kinds.items():
        if len(mine) < 2:
            continue
        qualities = [row["psnr_db"] for row in mine.values()]
        spread = statistics.stdev(qualities)
        line = (
            f"{data}, {name}: {statistics.fmean(qualities):.3f} dB, standard deviation {spread:.3f}"
        )
        others = kinds.get((data, first), {})
        pairs = [(row, others[seed]) for seed, row in mine.items() if seed in others]
        if name == first or len(pairs) < 2:
            yield line
            continue
        apart = [one["psnr_db"] - other["psnr_db"] for one, other in pairs]
        error = statistics.stdev(apart) / len(apart) ** 0.5
        ratios = [
            statistics.fmean(one[key] / other[key] for one, other in pairs)
            for key in ("gaussians", "value")
        ]
        yield (
            f"{line}; {statistics.fmean(apart):+.3f} dB, standard error {error:.3f}, against "
            f"{first}, with {ratios[0]:.2f} times the Gaussians in {ratios[1]:.2f} times the time"
        )


def trained(capture: captured_images.Capture, args: argparse.Namespace) -> Iterator[cases.Row]:
    """One training after the other."""
    counts: list[int] = []  # of Gaussians, by the default recipe
    for name, seed in itertools.product(names(args), args.seeds):
        row = ours(capture, name, recipe(name, seed, args, counts), seed, args)
        counts += [row["gaussians"]] * (name == "default")
        yield row
    if args.trainer:
        for seed in args.seeds:
            yield theirs(capture, seed, args)


def recipe(
    name: str, seed: int, args: argparse.Namespace, counts: Sequence[int] = ()
) -> TrainConfig:
    """A recipe, or the first one with the changes of a variant.

    `counts` are the Gaussians of the default's trainings, for the recipes that need a number.
    Raises ValueError with one line that says what is wrong with a variant.
    """
    variants = {variant: changes for variant, *changes in args.variant}
    base = args.recipes[0] if name in variants else name
    make, share = BUDGETS.get(base) or (RECIPES[base], None)
    most = args.gaussians
    if share is not None:
        most = round(share * (most or statistics.fmean(counts)))
    fixed = {"seed": seed, "rasteriser": args.rasteriser}
    if most:
        fixed["max_gaussians"] = most
    config = make(args.schedule or args.steps).model_copy(update=fixed)
    try:
        return changed(config, variants.get(name, []))
    except ValueError as error:
        raise ValueError(f"{'--variant ' * (name in variants)}{name}: {error}") from error


def ours(
    capture: captured_images.Capture,
    name: str,
    config: TrainConfig,
    seed: int,
    args: argparse.Namespace,
) -> cases.Row:
    """Train by a recipe of that name; `seed` says which views are held out with --rotate."""
    first = seed % args.every if args.rotate else 0
    views, held_out = cases.split(capture, args.every, first)
    on_gpu = args.device == "cuda"
    trainer = Trainer(views, capture.points, capture.colors, config, args.device)
    for step in range(len(views) + 2):  # kernels are compiled
        trainer.step(step)
    del trainer
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()  # memory of the first trainer counts no longer
    trainer = Trainer(views, capture.points, capture.colors, config, args.device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    begin = time.perf_counter()
    for step in range(args.steps):
        loss, _ = trainer.step(step)
    trainer.check_finite(trainer.value(loss), args.steps)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    peak_gib = reserved_gib = None
    if on_gpu:
        peak_gib = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        reserved_gib = round(torch.cuda.max_memory_reserved() / 2**30, 2)
    usual = is_usual(args)
    # Learnt poses move with the scene: the trainer moves both back to the given frame.
    quality = cases.mean_psnr(trainer.gaussians(args.steps), held_out, args.device)
    return cases.row(
        f"train, {name} recipe, {args.steps} steps",
        seconds,
        "s",
        device=args.device,
        anchor=ANCHORS_S.get(name) if usual else None,
        target=TARGETS_S.get(name) if usual else None,
        size=args.size,
        seed=seed,
        steps_per_s=round(args.steps / seconds, 1),
        psnr_db=round(quality, 3),
        gaussians=len(trainer.state.params["means"]),
        peak_gib=peak_gib,
        reserved_gib=reserved_gib,
    )


def changed(config: TrainConfig, changes: Sequence[str]) -> TrainConfig:
    """A recipe with KEY=VALUE of `train:`. Raises ValueError where that is none.

    >>> changed(TrainConfig(), ["strategy.halve_every=500"]).strategy.halve_every
    500
    """
    values = config.model_dump()
    for change in changes:
        key, _, value = change.partition("=")
        *places, last = key.split(".")
        section = values
        for place in places:
            section = section.get(place) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section or "=" not in change:
            raise ValueError(f"{change} is no KEY=VALUE of train:")
        if key in _OPTIONS:
            raise ValueError(f"{change}: {_OPTIONS[key]} sets it")
        try:
            section[last] = YAML(typ="safe").load(value)
        except YAMLError:
            raise ValueError(f"{change}: the value is no YAML") from None
    try:
        return type(config).model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        ) from error


def is_usual(args: argparse.Namespace) -> bool:
    """Whether the trainings are those of the anchors: of plain made images, with free growth."""
    changed = args.data, args.photographed, args.gaussians, args.schedule
    case = args.device, args.steps, args.views, args.size, args.points, args.every
    usual = "cuda", 7000, 50, "540x960", captured_images.POINTS, 8
    return case == usual and not any(changed)


def second_command(line: str, data: Path, result: Path, steps: int, seed: int) -> list[str]:
    """Words of the second trainer's command line. Raises ValueError or LookupError.

    >>> second_command("train {data} --to {result} {steps}", Path("a b"), Path("c"), 7, 1)
    ['train', 'a b', '--to', 'c', '7']
    """
    values = {"data": data, "result": result, "steps": steps, "seed": seed}
    return [word.format(**values) for word in shlex.split(line)]


def theirs(capture: captured_images.Capture, seed: int, args: argparse.Namespace) -> cases.Row:
    """Run the second trainer on the same data."""
    with tempfile.TemporaryDirectory() as folder:
        data, result = Path(folder) / "data", Path(folder) / "result"
        captured_images.write(capture, data)
        command = second_command(args.trainer, data, result, args.steps, seed)
        begin = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - begin
        stats, last = result / "stats", args.steps - 1
        clock = stats / f"train_step{last:04d}_rank0.json"
        if clock.is_file():
            seconds = read_json(clock)["ellipse_time"]
        scores = read_json(stats / f"val_step{last:04d}.json")
    moved = {"psnr_moved_db": round(scores["psnr_moved"], 3)} if "psnr_moved" in scores else {}
    return cases.row(
        f"the second trainer, {args.steps} steps",
        seconds,
        "s",
        device=args.device,
        command=args.trainer,
        size=args.size,
        seed=seed,
        steps_per_s=round(args.steps / seconds, 1),
        psnr_db=round(scores["psnr"], 3),
        gaussians=scores["num_GS"],
        **moved,
    )


if __name__ == "__main__":
    launch(main)
