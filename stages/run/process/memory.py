"""Free memory, and whether the images that a process is about to load fit."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from stages.run.errors import UserError

FLOAT_RGB_BYTES = 12  # of a pixel: three float32
_GIB = 2**30
# Copies of one image while it is read: levels, floats, and the resampled image.
_READING = 3
_SHARE = 0.9  # the rest is for everything except images
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30
_OLD_LIMIT_BYTES = 2**25  # of _M_MMAP_THRESHOLD in glibc before 2.35


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next allocation; False where it cannot.

    Otherwise glibc returns large blocks to the system at once, and the system clears every page
    again when an array of the same size follows: half of the time of an evaluation.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
    if mallopt is None or not mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES):
        return False
    return any(mallopt(_M_MMAP_THRESHOLD, most) for most in (_KEPT_BYTES, _OLD_LIMIT_BYTES))


def memory_bytes() -> int:
    """Physical memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int | None:
    """The least that machine, container and `ulimit -v` leave; None where none is known."""
    return min(_limits(), default=None)


def require_for(
    sizes: Iterable[tuple[int, int]], factor: int, where: str, lowers: str, copies: int = 1
) -> None:
    """Raise UserError when images do not fit into memory.

    Args:
        sizes: (width, height) of each image in px.
        factor: Each image is shrunk by it, on both sides.
        where: The parameter that shrinks the images or lowers their number.
        lowers: The fix, with `{factor}` for a factor that fits.
        copies: Processes that hold these images at once.
    """
    sizes, free = list(sizes), available_bytes()
    if free is None or not sizes:
        return
    needed = _bytes_of(sizes, factor, copies)
    if needed <= _SHARE * free:
        return
    fitting = (f for f in range(factor + 1, 65) if _bytes_of(sizes, f, copies) <= _SHARE * free)
    width, height = max(sizes)
    count = f"{copies} times {len(sizes)}" if copies > 1 else f"{len(sizes)}"
    raise UserError(
        where,
        f"{count} images of up to {width}x{height} px take about "
        f"{needed / _GIB:.1f} GiB of memory, and {free / _GIB:.1f} GiB are free",
        expected="images that fit",
        fix=lowers.format(factor=next(fitting, "more")),
    )


def _bytes_of(sizes: list[tuple[int, int]], factor: int, copies: int) -> float:
    """Bytes of the shrunk images, and of one that is being read."""
    pixels = [width * height for width, height in sizes]
    shrunk = sum(pixels) / factor**2
    return copies * FLOAT_RGB_BYTES * (shrunk + _READING * max(pixels))


def _limits() -> Iterator[int]:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024
    yield from _left_by_groups()
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        pages = [int(line.split()[0]) for line in _lines(Path("/proc/self/statm"))]
        yield max(0, limit - sum(pages) * resource.getpagesize())


def _left_by_groups(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """Bytes that each control group of this process leaves, such as a container's or a job's."""
    for _, controllers, place in (line.split(":", 2) for line in _lines(own)):
        # In version 1 each resource has a tree of its own.
        top = root / "memory" if "memory" in controllers.split(",") else root
        own_group = top / place.strip("/")
        for folder in (own_group, *own_group.parents):
            if not folder.is_relative_to(top):
                break
            limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
            used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
            if limit is not None and used is not None:
                stat = dict(line.split(maxsplit=1) for line in _lines(folder / "memory.stat"))
                yield max(0, limit - used + int(stat.get("inactive_file", 0)))


def _number(*paths: Path) -> int | None:
    """The number in the first of these files that exists; None also for `max`."""
    first = next(iter([line for path in paths for line in _lines(path)]), "")
    return int(first) if first.isdigit() else None


def _lines(path: Path) -> list[str]:
    """Lines of a file of the kernel; none if it does not exist."""
    try:
        return [line for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        return []
