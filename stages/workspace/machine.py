"""Checks of the machine: Python, packages, GPU and compiler, pycolmap, disk, memory, SLURM."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.graph.settings import read_settings
from stages.run.files import work_root
from stages.run.plurals import first_few
from stages.run.process.gpus import named_gpus
from stages.workspace import probes
from stages.workspace.findings import FAIL, OK, WARN, Finding

_GIB = 2**30
# The demo's data takes 0.1 GiB, its packages 6; a real scene's a few.
_DISK_FAIL_GIB, _DISK_WARN_GIB = 1, 10
_MEMORY_WARN_GIB = 6
# What PyPI's wheels of torch 2.15 and of 2.10 have code for begins with Turing and with Volta.
_OLDEST_OF_LOCK, _OLDEST_OF_CUDA12 = (7, 5), (7, 0)
_COMPILED = re.compile(r"\b(sm|compute)_(\d{2,3})([af]?)\b")


def python() -> Iterator[Finding]:
    version, in_environment = probes.python()
    if not (3, 11) <= tuple(map(int, version.split(".")[:2])) < (3, 14):
        yield Finding(
            "python",
            FAIL,
            f"{version}; 3.11 to 3.13 are supported",
            "make clean && make setup PYTHON=python3.12",
        )
    elif not in_environment:
        yield Finding(
            "python",
            WARN,
            f"{version}, no virtual environment",
            "make setup && . .venv/bin/activate",
        )
    else:
        yield Finding("python", OK, f"{version} in a virtual environment")


def packages() -> Iterator[Finding]:
    lock = probes.lock()
    pinned = probes.pins(lock)
    missing, other = [], []
    for name, version in pinned.items():
        installed = probes.installed(name)
        if installed is None:
            missing.append(name)
        elif _without_local(installed) != version:
            other.append(f"{name} {installed} for {version}")
    fix = f"uv pip install --requirements {lock}"
    if missing:
        yield Finding("packages", FAIL, f"not installed: {first_few(missing)}", fix)
    elif other:
        yield Finding("packages", WARN, f"other versions than pinned: {first_few(other)}", fix)
    else:
        yield Finding("packages", OK, f"{len(pinned)} as pinned")


def gpu() -> Iterator[Finding]:
    cards, built_for, version = probes.gpus(), probes.torch_cuda(), probes.installed("torch")
    if version is None:
        yield Finding("torch", FAIL, "not installed", "make setup")
    elif not cards:
        build = f"built for CUDA {built_for}" if built_for else "a CPU build"
        yield Finding("torch", OK, f"{version}, {build}; no GPU here: the CPU backend is used")
    elif built_for is None:
        yield Finding(
            "torch",
            FAIL,
            f"{version} is a CPU build, but there is {cards[0]}",
            "uv pip install --reinstall torch torchvision",
        )
    else:
        build = f"{version}, built for CUDA {built_for}"
        without = [one for one in probes.capabilities() if not _has_code(probes.torch_code(), one)]
        if without:
            yield _no_code(build, min(without))
        else:
            yield Finding("torch", OK, f"{build}; {len(cards)} x {cards[0]}")


def _has_code(compiled: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether one of sm_86, compute_90 and the like runs on a GPU of this compute capability.

    Machine code runs within its major version from its minor version on, PTX from its version on.

    >>> [_has_code(["sm_75", "sm_86"], one) for one in ((7, 0), (7, 5), (8, 0), (8, 9), (12, 0))]
    [False, True, False, True, False]
    >>> _has_code(["sm_90a"], (9, 0)), _has_code(["compute_90"], (12, 0)), _has_code([], (9, 0))
    (True, True, True)
    """
    for kind, digits, only in _COMPILED.findall(" ".join(compiled)):
        version = int(digits[:-1]), int(digits[-1])
        same = version == capability if only else version[0] == capability[0]
        if version <= capability and (same or kind == "compute"):
            return True
    return not compiled  # it could not be asked


def _no_code(build: str, capability: tuple[int, int]) -> Finding:
    """What to install for a GPU that torch has no code for."""
    name = f"sm_{capability[0]}{capability[1]}"
    message = f"{build}, has no code for this GPU ({name})"
    is_older = capability < _OLDEST_OF_LOCK
    if is_older and capability >= _OLDEST_OF_CUDA12:
        fix = f"make setup GPU=cuda12, which takes {probes.LOCK_CUDA12}"
    elif is_older:
        fix = (
            "export CUDA_VISIBLE_DEVICES=, for the CPU: neither lock's torch has code for this GPU"
        )
    else:
        fix = f"make setup GPU=, which takes {probes.LOCK}; if it did, make lock for a newer torch"
    return Finding("torch", FAIL, message, fix)


def backend(requested: str) -> str:
    """What scenes will be trained on and why, without torch; `requested` is train.backend."""
    cards = probes.gpus()
    if not cards:
        return "the CPU: no GPU here"
    card = cards[0].partition(",")[0]
    if requested == "cpu":
        return f"the CPU, as train.backend is cpu; {card} is not used"
    if named_gpus() == []:
        return f"the CPU, as CUDA_VISIBLE_DEVICES leaves out {card}"
    if probes.torch_cuda() is None:
        return f"the CPU, as torch is a CPU build; {card} is not used"
    return f"{card}, as train.backend is {requested}; gsplat builds its kernels at the first use"


def compilers() -> Iterator[Finding]:
    """gsplat builds its kernels on the machine, with the CUDA that torch was built for."""
    cards, built_for, nvcc = probes.gpus(), probes.torch_cuda(), probes.nvcc()
    # Without a GPU nothing is compiled.
    mismatch = FAIL if cards else WARN
    if nvcc is None and not cards:
        yield Finding("nvcc", OK, "none; it is only needed with a GPU")
    elif nvcc is None:
        yield Finding(
            "nvcc",
            FAIL,
            "no CUDA compiler: gsplat cannot build its kernels",
            f"install the CUDA {built_for} toolkit and set CUDA_HOME to it",
        )
    elif built_for and nvcc[1].partition(".")[0] != built_for.partition(".")[0]:
        message = f"CUDA {nvcc[1]} at {nvcc[0]}; torch is built for {built_for}"
        yield Finding("nvcc", mismatch, message, f"set CUDA_HOME to a CUDA {built_for} toolkit")
    else:
        yield Finding("nvcc", OK, f"CUDA {nvcc[1]} at {nvcc[0]}")
    if cards and probes.compiler() is None:
        yield Finding(
            "c++",
            FAIL,
            "no C++ compiler: gsplat cannot build its kernels",
            "install g++, or set CXX",
        )


def kernels() -> Iterator[Finding]:
    version = probes.installed("gsplat")
    if not probes.gpus():
        yield Finding("gsplat", OK, f"{version}; its kernels need a GPU, the CPU backend does not")
        return
    works, figures = probes.kernels()
    fix = "see torch and nvcc above; after a change of either: rm -r ~/.cache/torch_extensions"
    yield Finding("gsplat", OK if works else FAIL, f"{version}; {figures}", "" if works else fix)


def pycolmap() -> Iterator[Finding]:
    version = probes.installed("pycolmap")
    if version is None:
        yield Finding("pycolmap", FAIL, "not installed", "make setup")
        return
    complaint = probes.importable("pycolmap")
    if complaint:
        yield Finding(
            "pycolmap",
            FAIL,
            f"{version} cannot be imported: {complaint}",
            "uv pip install --reinstall pycolmap",
        )
    else:
        yield Finding("pycolmap", OK, version)


def disk() -> Iterator[Finding]:
    settings = read_settings()
    places = {"disk": Path(), "disk of scratch": work_root()}
    places |= {"disk of cache": settings.cache} if settings else {}
    devices: set[int] = set()
    for name, path in places.items():
        device = probes.existing(path).stat().st_dev
        if device in devices:
            continue
        devices.add(device)
        free = probes.free_bytes(path) / _GIB
        status = FAIL if free < _DISK_FAIL_GIB else WARN if free < _DISK_WARN_GIB else OK
        fix = "dvc gc --workspace (add --all-experiments to keep these), or a cache elsewhere: "
        fix += "dvc cache dir --local PATH"
        yield Finding(name, status, f"{free:.1f} GiB free", "" if status == OK else fix)


def memory() -> Iterator[Finding]:
    size = probes.memory_bytes() / _GIB
    small = size < _MEMORY_WARN_GIB
    fix = "set workers: 1 in runtime.train and runtime.novel_views" if small else ""
    yield Finding("memory", WARN if small else OK, f"{size:.1f} GiB", fix)


def slurm() -> Iterator[Finding]:
    version = probes.slurm()
    if version is None:
        yield Finding("slurm", OK, "none: stages run on this machine")
        return
    settings = read_settings()
    kind = probes.file_system(settings.cache) if settings else "unknown"
    if not probes.is_shared(kind):
        message = f"{version}; the cache is on {kind}, which other nodes may not see"
        fix = "dvc cache dir --local /SHARED/cache && dvc config --local cache.shared group"
        yield Finding(
            "slurm", WARN, message, f"{fix} && dvc config --local cache.type symlink,copy"
        )
    elif settings and settings.shared != "group":
        message = f"{version}; the cache on {kind} is writable by its owner only"
        yield Finding("slurm", WARN, message, "dvc config --local cache.shared group")
    else:
        yield Finding("slurm", OK, f"{version}, cache on {kind}")


def _without_local(version: str) -> str:
    return version.partition("+")[0]
