"""What a fixer costs on the CPU before its first image and after its last one.

    python -m benchmarks.difix_load [--size sd-turbo] [--px 940x1280] [--out FILE]

A fixer of random weights is written to a temporary folder (3.8 GB of SD-Turbo's size). A fresh
process imports the code, reads the folder and hashes it, as the stages do. Then images are written
by `write_png` and by `png_writer`. All files are in the system's cache.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.command_line import launch
from benchmarks.machine import processor
from stages.run.files import folder_hash, write_json
from stages.run.process.cores import available_cores

_IMAGES = 16
_MADE, _LOADED = "made", "loaded"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="sd-turbo", help="tiny, small or sd-turbo")
    parser.add_argument("--px", default="940x1280", help="height x width of the images")
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    parser.add_argument("--child", nargs=2, metavar=("HOW", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        how, folder = args.child[0], Path(args.child[1])
        print(json.dumps(made(folder, args.size) if how == _MADE else loaded(folder)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        fixer, images = Path(scratch, "fixer"), Path(scratch, "images")
        start = child(_MADE, fixer, args.size)
        rows = [start | child(_LOADED, fixer, args.size), images_written(images, args.px)]
    device = f"{processor()}, {available_cores()} core(s)"
    print(device)
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if args.out:
        write_json(args.out, {"rows": [{"device": device} | row for row in rows]})


def child(how: str, folder: Path, size: str) -> dict[str, Any]:
    """What a fresh process prints, whose imports and memory are its own."""
    command = [sys.executable, "-m", "benchmarks.difix_load", "--size", size, "--child", how]
    output = subprocess.run([*command, folder], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(output.stdout.splitlines()[-1])


def made(folder: Path, size: str) -> dict[str, Any]:
    """Write a fixer of random weights."""
    from stages.difix.network.model import random_fixer
    from stages.difix.network.spec import SIZES
    from stages.difix.weights.folders import write_folder

    fixer = random_fixer(SIZES[size], seed=0)
    write_folder(fixer, folder)
    return {"size": size, "gb": round(fixer.parameter_count() * 4 / 1e9, 2)}


def loaded(folder: Path) -> dict[str, Any]:
    """Seconds of imports, of reading and of hashing, and the peak of memory."""
    times = [time.perf_counter()]
    from stages.difix.weights.folders import read_folder

    times.append(time.perf_counter())
    fixer = read_folder(folder)
    times.append(time.perf_counter())
    folder_hash(folder)
    times.append(time.perf_counter())
    assert fixer.parameter_count()
    # The files are mapped: their pages are in the peak, though the system may take them back.
    return {
        "imports_s": round(times[1] - times[0], 2),
        "read_s": round(times[2] - times[1], 2),
        "hash_s": round(times[3] - times[2], 2),
        "value": round(times[3] - times[0], 2),
        "unit": "s",
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def images_written(folder: Path, px: str) -> dict[str, Any]:
    """Seconds of writing images one after the other, and in threads."""
    from benchmarks.difix_cases import random_images
    from stages.scenes.images import png_writer, write_png

    height, width = map(int, px.split("x"))
    image = random_images(1, height, width).image[0].permute(1, 2, 0).numpy()
    paths = [folder / f"{number}.png" for number in range(_IMAGES)]
    times = [time.perf_counter()]
    for path in paths:
        write_png(path, image)
    times.append(time.perf_counter())
    with png_writer() as write:
        for path in paths:
            write(path, image)
    times.append(time.perf_counter())
    return {
        "images": _IMAGES,
        "px": px,
        "in_turn_s": round(times[1] - times[0], 2),
        "value": round(times[2] - times[1], 2),
        "unit": "s",
    }


if __name__ == "__main__":
    launch(main)
