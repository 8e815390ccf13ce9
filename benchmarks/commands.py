"""Time of commands that compute nothing, each in a new Python.

    python -m benchmarks.commands [--repeats 5] [--write]

The minimum of several runs: wall clock, and processor time, which a busy machine affects less.
`--write` writes the rows to benchmarks/results/commands.json.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command_line import launch
from benchmarks.machine import processor
from stages.run.files import write_json

RESULTS = Path(__file__).parent / "results" / "commands.json"
ENTRIES = sorted(path.stem for path in Path("stages").glob("*.py") if path.stem != "__init__")
# The longest acceptable times.
HELP_TARGET_S, CHECK_TARGET_S = 0.5, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    print(f"{'command':34}{'wall s':>9}{'processor s':>13}{'target s':>10}")
    helps = [(name, *timed([name, "--help"], args.repeats)) for name in ENTRIES]
    slowest = max(helps, key=lambda row: row[1])
    rows = [row("--help, the slowest: " + slowest[0], slowest[1:], HELP_TARGET_S)]
    commands = {"check": CHECK_TARGET_S, "doctor --quick": CHECK_TARGET_S, "plan": None}
    for words, target in commands.items():
        rows.append(row(words, timed(words.split(), args.repeats), target))
    if args.write:
        rows = [result | {"device": processor()} for result in rows]
        write_json(RESULTS, {"rows": rows})


def timed(words: Sequence[str], repeats: int) -> tuple[float, float]:
    """Minimum seconds of a command: wall clock and processor time."""
    walls, processors = [], []
    for _ in range(repeats):
        began, before = time.perf_counter(), children_s()
        command = [sys.executable, "-m", f"stages.{words[0]}", *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
        walls.append(time.perf_counter() - began)
        processors.append(children_s() - before)
        assert done.returncode in (0, 1), done.stderr
    return min(walls), min(processors)


def children_s() -> float:
    """Processor time of all ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(name: str, seconds: tuple[float, float], target: float | None) -> dict[str, object]:
    """Print a line; returns it as a row of results."""
    print(f"{name:34}{seconds[0]:9.2f}{seconds[1]:13.2f}{target or '-':>10}", flush=True)
    return {
        "name": f"python -m stages.{name}" if name[0] != "-" else name,
        "value": round(seconds[0], 2),
        "processor_s": round(seconds[1], 2),
        "unit": "s",
        "anchor": None,
        "target": target,
    }


if __name__ == "__main__":
    launch(main)
