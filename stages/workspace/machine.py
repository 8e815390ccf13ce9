"""Is this machine fit: Python, packages, GPU and its compiler, pycolmap, room, SLURM."""

from collections.abc import Iterator
from pathlib import Path

from stages.run.files import work_root
from stages.workspace import probes
from stages.workspace.findings import FAIL, OK, WARN, Finding, few
from stages.workspace.settings import read_settings

_GIB = 2**30
# The demo's data takes 0.1 GiB, its packages 6; a real scene's a few.
_ROOM_FAIL_GIB, _ROOM_WARN_GIB = 1, 10
_MEMORY_WARN_GIB = 6


def python() -> Iterator[Finding]:
    version, in_environment = probes.python()
    if not (3, 11) <= tuple(map(int, version.split(".")[:2])) < (3, 14):
        yield Finding("python", FAIL, f"{version}; 3.11 to 3.13 are supported",
                      "make clean && make setup PYTHON=python3.12")  # fmt: skip
    elif not in_environment:
        yield Finding("python", WARN, f"{version}, no virtual environment",
                      "make setup && . .venv/bin/activate")  # fmt: skip
    else:
        yield Finding("python", OK, f"{version} in a virtual environment")


def packages() -> Iterator[Finding]:
    pinned = probes.pins()
    absent, other = [], []
    for name, version in pinned.items():
        found = probes.installed(name)
        if found is None:
            absent.append(name)
        elif _without_local(found) != version:
            other.append(f"{name} {found} for {version}")
    fix = "uv pip install --requirements requirements.lock"
    if absent:
        yield Finding("packages", FAIL, f"not installed: {few(absent)}", fix)
    elif other:
        yield Finding("packages", WARN, f"other versions than pinned: {few(other)}", fix)
    else:
        yield Finding("packages", OK, f"{len(pinned)} as pinned")


def gpu() -> Iterator[Finding]:
    cards, built_for, version = probes.gpus(), probes.torch_cuda(), probes.installed("torch")
    if version is None:
        yield Finding("torch", FAIL, "not installed", "make setup")
    elif not cards:
        made = f"built for CUDA {built_for}" if built_for else "a CPU build"
        yield Finding("torch", OK, f"{version}, {made}; no GPU here: the CPU backend is taken")
    elif built_for is None:
        yield Finding("torch", FAIL, f"{version} is a CPU build, and there is {cards[0]}",
                      "uv pip install --reinstall torch torchvision")  # fmt: skip
    else:
        yield Finding(
            "torch", OK, f"{version}, built for CUDA {built_for}; {len(cards)} x {cards[0]}"
        )


def compilers() -> Iterator[Finding]:
    """gsplat builds its kernels on the machine, with the CUDA that torch was built for."""
    cards, built_for, found = probes.gpus(), probes.torch_cuda(), probes.nvcc()
    # Without a GPU nothing is built.
    wrong = FAIL if cards else WARN
    if found is None and not cards:
        yield Finding("nvcc", OK, "none; it is needed beside a GPU only")
    elif found is None:
        yield Finding("nvcc", FAIL, "no CUDA compiler: gsplat cannot build its kernels",
                      f"install the CUDA {built_for} toolkit and set CUDA_HOME to it")  # fmt: skip
    elif built_for and found[1].partition(".")[0] != built_for.partition(".")[0]:
        what = f"CUDA {found[1]} at {found[0]}; torch is built for {built_for}"
        yield Finding("nvcc", wrong, what, f"set CUDA_HOME to a CUDA {built_for} toolkit")
    else:
        yield Finding("nvcc", OK, f"CUDA {found[1]} at {found[0]}")
    if cards and probes.compiler() is None:
        yield Finding("c++", FAIL, "no C++ compiler: gsplat cannot build its kernels",
                      "install g++, or set CXX")  # fmt: skip


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
        yield Finding("pycolmap", FAIL, f"{version} cannot be imported: {complaint}",
                      "uv pip install --reinstall pycolmap")  # fmt: skip
    else:
        yield Finding("pycolmap", OK, version)


def disk() -> Iterator[Finding]:
    settings = read_settings()
    places = {"disk": Path(), "disk of scratch": work_root()}
    places |= {"disk of cache": settings.cache} if settings else {}
    seen: set[int] = set()
    for name, path in places.items():
        device = probes.existing(path).stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free = probes.free_bytes(path) / _GIB
        status = FAIL if free < _ROOM_FAIL_GIB else WARN if free < _ROOM_WARN_GIB else OK
        fix = "dvc gc --workspace (add --all-experiments to keep these), or a cache elsewhere: "
        fix += "dvc cache dir --local PATH"
        yield Finding(name, status, f"{free:.1f} GiB free", "" if status == OK else fix)


def memory() -> Iterator[Finding]:
    size = probes.memory_bytes() / _GIB
    small = size < _MEMORY_WARN_GIB
    yield Finding("memory", WARN if small else OK, f"{size:.1f} GiB",
                  "set train.workers: 1 and novel_views.workers: 1" if small else "")  # fmt: skip


def slurm() -> Iterator[Finding]:
    version = probes.slurm()
    if version is None:
        yield Finding("slurm", OK, "none: stages run on this machine")
        return
    settings = read_settings()
    kind = probes.file_system(settings.cache) if settings else "unknown"
    if not probes.is_shared(kind):
        what = f"{version}; the cache is on {kind}, which other nodes may not see"
        fix = "dvc cache dir --local /SHARED/cache && dvc config --local cache.shared group"
        yield Finding("slurm", WARN, what, f"{fix} && dvc config --local cache.type symlink,copy")
    elif settings and settings.shared != "group":
        what = f"{version}; the cache on {kind} is writable by its owner alone"
        yield Finding("slurm", WARN, what, "dvc config --local cache.shared group")
    else:
        yield Finding("slurm", OK, f"{version}, cache on {kind}")


def _without_local(version: str) -> str:
    return version.partition("+")[0]
