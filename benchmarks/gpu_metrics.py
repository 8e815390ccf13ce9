"""Metrics of the study made on this machine's GPU, against those made on a CPU.

    python -m benchmarks.gpu_metrics [--jobs 8] [--set KEY=VALUE ...] [--against FOLDER]

A clone with an empty cache runs the study of params.yaml. Its metrics are compared, method by
method and scene by scene, with those in `--against`: by default metrics/ of this repository, which
a CPU made. With `--set` and no `--against` both are made here, first on the CPU; without a GPU that
compares two equal runs.

Differences by design: the GPU's kernels and the CPU's rasteriser sum in other orders, atomics in
another one each time, and training amplifies that; the tuned fixer is tuned on the renders of its
own splats. Beside them stands the study's own noise, that of another seed of the splats.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.command_line import launch
from benchmarks.demo_walltime import ROOT, environment, prepare
from benchmarks.full_study import follow, shared_gpus
from benchmarks.machine import device_name
from stages.run.files import read_json, write_json
from stages.run.process.gpus import gpu_environment

MEASURES = ("psnr", "ssim", "lpips")
TOLERANCE_DB = 0.05
_DIGEST = re.compile(r" [0-9a-f]{8}\b")


@dataclass(frozen=True)
class Difference:
    """Measures of one method on one scene here, less those it is compared with."""

    scene: str
    method: str
    psnr: float
    ssim: float
    lpips: float | None
    same_views: bool  # the ground truth has the same bytes, and LPIPS the same weights


def main() -> None:
    """Run the study, print the differences; the exit code is 1 if a method's mean PSNR differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="stages at once")
    parser.add_argument("--gpu-tasks", type=int, default=1, help="stages at once on each GPU")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="params to change, as `-S`"
    )
    parser.add_argument("--minutes", type=float, help="stop a run, and compare what it has by then")
    parser.add_argument("--against", type=Path, help="folder of metrics to compare with")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE_DB, help="dB, of a method")
    parser.add_argument("--keep", type=Path, help="copy the metrics of this run to a new folder")
    parser.add_argument("--out", type=Path, help="write the differences as JSON as well")
    args = parser.parse_args()

    import torch

    device = device_name("cuda" if torch.cuda.is_available() else "cpu")
    against = args.against or (None if args.set else ROOT / "metrics")
    with tempfile.TemporaryDirectory(prefix="splatfix-gpu-metrics-") as scratch:
        if against is None:
            cpu = Path(scratch, "cpu")
            against = run(cpu, args.set, args.jobs, gpu_environment([]), args.minutes)
        began = time.monotonic()
        gpus = shared_gpus(args.gpu_tasks, args.jobs)
        made = run(Path(scratch, "clone"), args.set, args.jobs, gpus, args.minutes)
        seconds = round(time.monotonic() - began, 1)
        rows = list(differences(made, against))
        noise = noise_db(against)
        if args.keep and made.is_dir():
            shutil.copytree(made, args.keep)
    print(table(rows))
    far = beyond(rows, args.tolerance)
    print(f"{device}, {seconds} s; tolerance {args.tolerance} dB of a method's mean over scenes")
    if others := sorted({row.scene for row in rows if not row.same_views}):
        print(f"other photographs or weights of LPIPS, to the byte: {', '.join(others)}")
    if noise is not None:
        print(f"another seed of the splats changes the mean by up to {noise} dB (95 %)")
    for method, psnr in far.items():
        print(f"{method}: {psnr:+.3f} dB is beyond the tolerance")
    if args.out:
        facts = {"device": device, "seconds": seconds, "tolerance_db": args.tolerance}
        facts |= {"noise_db": noise, "methods": means(rows)}
        write_json(args.out, facts | {"rows": [asdict(row) for row in rows]})
    sys.exit(bool(far or not rows))


def run(
    folder: Path,
    settings: Sequence[str],
    jobs: int,
    gpus: Mapping[str, str],
    minutes: float | None,
) -> Path:
    """Run the study in a new clone, to its end or for so long; the folder of its metrics.

    Raises SystemExit if the study fails.
    """
    prepare(folder, settings)
    # The answer needs no report; a viewer and films would take longer than the study.
    words = [sys.executable, "-m", "stages.repro", "--jobs", str(jobs), "decide"]
    code, why = follow(words, folder, environment() | gpus, minutes)
    if why:
        print(why)
    elif code:
        sys.exit(code)
    return folder / "metrics"


def differences(made: Path, against: Path) -> Iterator[Difference]:
    """All methods of all scenes that both folders of metrics have; seeds of the noise are none.

    Raises SystemExit if they measured different things.
    """
    for path in sorted(made.glob("scenes/*/*.json")):
        other = against / path.relative_to(made)
        if "." in path.parent.name or not other.is_file():
            continue
        here, there = read_json(path), read_json(other)
        protocols = here["protocol"], there["protocol"]
        if len({_DIGEST.sub("", one) for one in protocols}) > 1:
            name = path.relative_to(made)
            sys.exit(f"{name}: measured as {protocols[0]}, not as {protocols[1]}")
        yield Difference(
            path.parent.name,
            path.stem,
            *(
                None if None in (here[name], there[name]) else round(here[name] - there[name], 6)
                for name in MEASURES
            ),
            same_views=protocols[0] == protocols[1],
        )


def means(rows: Sequence[Difference]) -> dict[str, dict[str, float | None]]:
    """The mean over scenes of each measure, by method."""
    found: dict[str, dict[str, float | None]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        found[method] = {}
        for name in MEASURES:
            values = [getattr(row, name) for row in rows if row.method == method]
            found[method][name] = None if None in values else round(fmean(values), 6)
    return found


def beyond(rows: Sequence[Difference], tolerance_db: float) -> dict[str, float]:
    """Methods whose mean PSNR differs by more, and by how much.

    >>> far = [Difference(scene, "none", 0.1, 0.0, None, True) for scene in "ab"]
    >>> beyond(far, 0.05), beyond([*far, Difference("c", "none", -0.2, 0.0, None, True)], 0.05)
    ({'none': 0.1}, {})
    """
    psnr = {method: values["psnr"] for method, values in means(rows).items()}
    return {method: value for method, value in psnr.items() if abs(value) > tolerance_db}


def table(rows: Sequence[Difference]) -> str:
    """The differences as text: each scene's, then each method's mean."""
    lines = [f"{'scene':24}{'method':16}{'PSNR dB':>10}{'SSIM':>10}{'LPIPS':>10}"]
    lines += [_line(row.scene, row.method, row.psnr, row.ssim, row.lpips) for row in rows]
    lines += [_line("mean", method, *values.values()) for method, values in means(rows).items()]
    return "\n".join(lines)


def _line(scene: str, method: str, psnr: float, ssim: float, lpips: float | None) -> str:
    last = "-" if lpips is None else f"{lpips:+.4f}"
    return f"{scene:24}{method:16}{psnr:+10.3f}{ssim:+10.4f}{last:>10}"


def noise_db(metrics: Path) -> float | None:
    """The least difference of PSNR that is no noise of the splats' seed; None if not measured."""
    path = metrics / "delta.json"
    floor = (read_json(path).get("noise_floor") or {}) if path.is_file() else {}
    return floor.get("psnr_least")


if __name__ == "__main__":
    launch(main)
