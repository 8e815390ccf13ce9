"""How much memory there is, and whether what a process is about to hold fits."""

import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path

from stages.run.errors import UserError

FLOAT_RGB_BYTES = 12  # of a pixel: three float32
_GIB = 2**30
# What is made of one photograph while it is read: levels, floats, and a resampled copy.
_READING = 3
_SPARE = 0.9  # the rest is for everything that is not a photograph


def memory_bytes() -> int:
    """Physical memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int | None:
    """The least of what the machine, the container and `ulimit -v` leave; None where none says."""
    return min(_limits(), default=None)


def require_for(
    sizes: Iterable[tuple[int, int]], factor: int, where: str, lowers: str, copies: int = 1
) -> None:
    """Raise UserError when photographs (width, height) px do not fit, each shrunk by `factor`.

    `where` is the parameter that shrinks them, or another that lowers their number; `lowers` says
    how. `copies` processes hold such photographs at once.
    """
    sizes, free = list(sizes), available_bytes()
    if free is None or not sizes:
        return
    wanted = _held(sizes, factor, copies)
    if wanted <= _SPARE * free:
        return
    enough = (one for one in range(factor + 1, 65) if _held(sizes, one, copies) <= _SPARE * free)
    width, height = max(sizes)
    told = f"{copies} times {len(sizes)}" if copies > 1 else f"{len(sizes)}"
    raise UserError(
        where, f"{told} photographs of up to {width}x{height} px take about "
        f"{wanted / _GIB:.1f} GiB of memory, and {free / _GIB:.1f} GiB are free",
        expected="photographs that fit", fix=lowers.format(factor=next(enough, "more")),
    )  # fmt: skip


def _held(sizes: list[tuple[int, int]], factor: int, copies: int) -> float:
    """Bytes of shrunk photographs, and of one that is being read."""
    pixels = [width * height for width, height in sizes]
    kept = sum(pixels) / factor**2
    return copies * FLOAT_RGB_BYTES * (kept + _READING * max(pixels))


def _limits() -> Iterator[int]:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024
    yield from _of_group()
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        pages = [int(line.split()[0]) for line in _lines(Path("/proc/self/statm"))]
        yield max(0, most - sum(pages) * resource.getpagesize())


def _of_group(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """What the control groups of this process leave, those of a container or a job."""
    for _, kinds, place in (line.split(":", 2) for line in _lines(own)):
        # Of the older kind each resource has a tree of its own.
        top = root / "memory" if "memory" in kinds.split(",") else root
        here = top / place.strip("/")
        for folder in (one for one in (here, *here.parents) if one.is_relative_to(top)):
            limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
            taken = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
            if limit is not None and taken is not None:
                stat = dict(line.split(maxsplit=1) for line in _lines(folder / "memory.stat"))
                yield max(0, limit - taken + int(stat.get("inactive_file", 0)))


def _number(*paths: Path) -> int | None:
    """The number in the first of these files that is there; None also for `max`."""
    first = next(iter([line for path in paths for line in _lines(path)]), "")
    return int(first) if first.isdigit() else None


def _lines(path: Path) -> list[str]:
    """Lines of a file of the kernel; none where it is not there."""
    try:
        return [line for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        return []
