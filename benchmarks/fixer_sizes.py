"""At which size a fixer is best tuned and applied, measured on the internal-eval scenes.

    python -m benchmarks.fixer_sizes [--workspace FOLDER] [--resolution PX] [--crop PX]
        [--seeds 0 1 2] [--set KEY=VALUE ...] [--out FILE]

The fixer of params.yaml is tuned in two ways that see about as many pixels a step: on whole samples
resized to `--resolution` (by default a third of the images' shorter side), and on random squares of
samples at full size, of `--crop` px. Each then fixes the target views of the internal-eval scenes
as method `post` does: whole at full size, resized to the size of tuning and back
(`difix.resolution`), or in tiles of that size (`difix.tile_px`). Beside them are the plain renders
and the untuned fixer. No downstream scene is measured, since these rows lead to choices.

Everything before the tuning is made in a clone with an empty cache, or read from a workspace in
which `dvc repro manifest` ran. Seconds are of the fixer alone, of the fastest timestamp.
"""

import argparse
import contextlib
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.command_line import launch
from benchmarks.demo_walltime import ROOT, environment, prepare, set_all
from benchmarks.fixer_views import Targets, targets_of
from benchmarks.machine import device_name
from stages.difix.applied import AppliedFixer
from stages.difix.config import FixerConfig, TuneConfig
from stages.quality.config import EvaluateConfig
from stages.quality.evaluation import Measures, Meter, means_of
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import write_json
from stages.run.settings.params import Params
from stages.samples.dataset import working_size
from stages.scenes.images import Pixels
from stages.scenes.scene import Scene
from stages.scenes.study.config import StudyConfig

Row = dict[str, Any]
MEASURES = ("psnr", "ssim", "lpips")
SHARE = 1 / 3  # of the shorter side, as the full-size recipe's 320 of 940 px
# Sections that no result before the tuning reads.
_APPLYING = ("difix.", "tune.", "evaluate.", "runtime.")
_LINKED = ("data/scenes", "data/calibrated", "data/splats", "data/pairs", "data/weights")
_LINKED += ("data/difix/base", "data/difix/dataset.json", "metrics/pairs")


class Sizes(NamedTuple):
    """Sizes of tuning, px: the shorter side of whole images, and the side of crops."""

    resolution: int
    crop: int


def main() -> None:
    """Tune by both ways and each seed, print the table and, with `--out`, write its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="with results; default: made in a clone")
    parser.add_argument("--resolution", type=int, help="shorter side of whole images, px")
    parser.add_argument("--crop", type=int, help="side of crops, px; default: as many pixels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of tuning")
    parser.add_argument("--jobs", type=int, default=2, help="stages at once in the clone")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="params to change, as `-S`"
    )
    parser.add_argument("--out", type=Path, help="write the rows as JSON as well")
    args = parser.parse_args()
    if args.workspace and (other := [one for one in args.set if not one.startswith(_APPLYING)]):
        got = f"{other[0]}: a workspace has its results already; leave --workspace out"
        raise UserError("--set", got)

    with tempfile.TemporaryDirectory(prefix="splatfix-sizes-") as scratch:
        folder = Path(scratch, "study")
        if args.workspace:
            borrow(args.workspace.resolve(), folder)
            set_all(folder, args.set)
        else:
            prepare(folder, args.set)
            words = ["stages.repro", "--jobs", str(args.jobs), "manifest", "base", "weights"]
            _run(words, folder)
        with contextlib.chdir(folder):
            facts, rows = study(args.seeds, args.resolution, args.crop)
    print(table(rows))
    for line in verdicts(rows):
        print(line)
    print("{device}; {size} px, {steps} steps, seeds {seeds}".format(**facts))
    if args.out:
        write_json(args.out, facts | {"set": args.set, "rows": rows})


def borrow(workspace: Path, folder: Path) -> None:
    """A folder with a workspace's params, and links to its results that tuning reads.

    Raises UserError that names the first result that is not there.
    """
    for name in ("params.yaml", *_LINKED):
        if not (workspace / name).exists():
            got = f"no {name} in it; run `dvc repro manifest base weights` there"
            raise UserError(f"--workspace {workspace}", got)
    for name in _LINKED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(workspace / name)
    shutil.copyfile(workspace / "params.yaml", folder / "params.yaml")


def study(seeds: Sequence[int], resolution: int | None, crop: int | None) -> tuple[Row, list[Row]]:
    """What was done, and all rows, of the study in the current folder."""
    params = Params.read()
    config, tuning = params.section("difix", FixerConfig), params.section("tune", TuneConfig)
    scenes = params.section("study", StudyConfig).internal_eval_scenes
    multiple = math.lcm(config.multiple, tuning.multiple)
    camera = Scene.read(layout.scene(scenes[0])).views("target")[0].camera
    sizes = sizes_of(camera.width, camera.height, multiple, resolution, crop)
    fixers = {
        f"whole, {sizes.resolution} px": [
            tuned(sizes.resolution, 0, seed, Path("fixers", f"whole_{seed}")) for seed in seeds
        ],
        f"crops, {sizes.crop} px": [
            tuned(0, sizes.crop, seed, Path("fixers", f"crops_{seed}")) for seed in seeds
        ],
    }
    rows = list(_rows(scenes, fixers, sizes, config, multiple))
    facts = {
        "device": device_name("cuda" if torch.cuda.is_available() else "cpu"),
        "scenes": list(scenes),
        "size": f"{camera.width}x{camera.height}",
        "steps": tuning.steps,
        "seeds": list(seeds),
        **sizes._asdict(),
    }
    return facts, rows


def sizes_of(
    width: int, height: int, multiple: int, resolution: int | None = None, crop: int | None = None
) -> Sizes:
    """Given sizes, or a third of the shorter side and the crop with about as many pixels.

    >>> sizes_of(940, 1280, 16), sizes_of(192, 256, 16, resolution=96)
    (Sizes(resolution=320, crop=368), Sizes(resolution=96, crop=112))
    """
    if resolution is None:
        resolution = max(1, round(SHARE * min(width, height) / multiple)) * multiple
    if crop is None:
        side = math.sqrt(math.prod(working_size(width, height, resolution, multiple)))
        crop = min(round(side / multiple), min(width, height) // multiple) * multiple
    return Sizes(resolution, crop)


def tuned(resolution: int, crop: int, seed: int, place: Path) -> Path:
    """The fixer that stage `tune` makes in the current folder with these params, moved away."""
    values = {"resolution": resolution, "crop_px": crop, "seed": seed}
    set_all(Path(), [f"tune.{key}={value}" for key, value in values.items()])
    _run(["stages.tune"], Path())
    place.parent.mkdir(exist_ok=True)
    return layout.tuned().rename(place)


def _run(words: Sequence[str], folder: Path) -> None:
    """Run a module in a folder, with its output among the messages."""
    env = environment() | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-m", *words], cwd=folder, env=env, stdout=2)
    if ended.returncode:
        sys.exit(ended.returncode)


def ways(size: int, multiple: int, overlap: int) -> Mapping[str, Mapping[str, int]]:
    """Params of section `difix` by which a fixer is applied at, or in tiles of, a size.

    >>> ways(320, 16, 64)["tiles of 320 px"]
    {'resolution': 0, 'tile_px': 320, 'tile_overlap_px': 64}
    >>> ways(64, 16, 64)["tiles of 64 px"]["tile_overlap_px"]
    16
    """
    least = size // 4 // multiple * multiple
    return {
        "whole at full size": {"resolution": 0, "tile_px": 0},
        f"resized to {size} px": {"resolution": size, "tile_px": 0},
        f"tiles of {size} px": {
            "resolution": 0,
            "tile_px": size,
            "tile_overlap_px": min(overlap, least),
        },
    }


def _rows(
    scenes: Sequence[str],
    fixers: Mapping[str, Sequence[Path]],
    sizes: Sizes,
    config: FixerConfig,
    multiple: int,
) -> Iterator[Row]:
    meter = Meter.build(Params.read().section("evaluate", EvaluateConfig), layout.WEIGHTS)
    base = AppliedFixer.read(layout.base(), config)
    targets = [
        one for scene in scenes for one in targets_of(scene, layout.DATA, base.fix, base.rule)
    ]
    plain = [view for one in targets for view in measured(meter, one, one.renders)]
    yield _row("no fixer", "", [plain])
    by_whole = ways(sizes.resolution, multiple, config.tile_overlap_px)
    by_crops = ways(sizes.crop, multiple, config.tile_overlap_px)
    whole, crops = fixers
    full, _, tiles = by_crops
    arms = [("untuned", [layout.base()], by_whole), (whole, fixers[whole], by_whole)]
    arms += [(crops, fixers[crops], {name: by_crops[name] for name in (full, tiles)})]
    for name, folders, applied in arms:
        for how, changes in applied.items():
            changed = FixerConfig.model_validate(config.model_dump() | changes)
            of_seeds, seconds = [], []
            for folder in folders:
                fixer = Timed(AppliedFixer.read(folder, changed))
                images = [one.fixed(fixer.fix, one.warp) for one in targets]
                pairs = zip(targets, images, strict=True)
                of_seeds.append([view for pair in pairs for view in measured(meter, *pair)])
                seconds.append(fixer.seconds)
            yield _row(name, how, of_seeds) | {"seconds": round(min(seconds), 3)}


class Timed:
    """A fixer that notes how long it takes for a view, in its fastest call."""

    def __init__(self, fixer: AppliedFixer):
        self.fixer, self.seconds = fixer, math.inf

    def fix(self, images: Sequence[Pixels], references: Sequence[Sequence[Pixels]]) -> list[Pixels]:
        """The fixed views of all images."""
        began = time.perf_counter()
        fixed = self.fixer.fix(images, references)
        self.seconds = min(self.seconds, (time.perf_counter() - began) / len(images))
        return fixed


def measured(meter: Meter, targets: Targets, images: Sequence[Pixels]) -> list[Measures]:
    """Measures of each view."""
    return [meter.measure(view) for view in targets.measured(images)]


def _row(name: str, how: str, of_seeds: Sequence[Sequence[Measures]]) -> Row:
    """Means over views and seeds; `of_seeds` are the measures of each view by seed."""
    means = [means_of(views, MEASURES) for views in of_seeds]
    row: Row = {"tuned": name, "applied": how, "views": len(of_seeds[0])}
    for key in MEASURES:
        values = [one[key] for one in means]
        row[key] = None if None in values else round(float(np.mean(values)), 4)
    psnr = [one["psnr"] for one in means]
    row["psnr_deviation"] = round(statistics.stdev(psnr), 4) if len(psnr) > 1 else None
    return row | {"seconds": None, "by_seed": means}


def table(rows: Sequence[Row]) -> str:
    """The rows as text; the deviation is that of PSNR over seeds."""
    head = f"{'tuned on':<18}{'applied':<22}{'PSNR dB':>9}{'sd':>7}{'SSIM':>9}{'LPIPS':>9}"
    lines = [f"{head}{'views':>7}{'s/view':>9}"]
    for row in rows:
        cells = [("psnr", ".3f", 9), ("psnr_deviation", ".3f", 7), ("ssim", ".4f", 9)]
        cells += [("lpips", ".4f", 9), ("views", "d", 7), ("seconds", ".2f", 9)]
        texts = [f"{_text(row[key], form):>{width}}" for key, form, width in cells]
        lines.append(f"{row['tuned']:<18}{row['applied']:<22}{''.join(texts)}")
    return "\n".join(lines)


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """The best tuned row by PSNR and by LPIPS, and how it differs from the first tuned one.

    >>> whole = {"tuned": "whole", "applied": "full", "psnr": 20.0, "lpips": None}
    >>> list(verdicts([whole | {"tuned": "untuned"}, whole, whole | {"tuned": "a", "psnr": 20.5}]))
    ['best PSNR: tuned on a, full: +0.500 against tuned on whole, full']
    """
    found = [row for row in rows if row["tuned"] not in ("no fixer", "untuned")]
    for key, best in (("psnr", max), ("lpips", min)):
        if any(row[key] is None for row in found):
            continue
        one = best(found, key=lambda row: row[key])
        yield (
            f"best {key.upper()}: {_named(one)}: {one[key] - found[0][key]:+.3f} "
            f"against {_named(found[0])}"
        )


def _named(row: Row) -> str:
    return f"tuned on {row['tuned']}, {row['applied']}"


if __name__ == "__main__":
    launch(main)
