"""Quick queries of this machine, which change nothing; this process does not import torch.

Each function answers one question; the checks of `doctor` judge. None means that it is absent.
"""

import fcntl
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from stages.run.files import read_json
from stages.run.process.memory import memory_bytes as memory_bytes

LOCK, LOCK_CUDA12 = Path("requirements.lock"), Path("requirements-cuda12.lock")
_TIMEOUT_S = 20
_IMPORT_TIMEOUT_S = 120
_KERNELS_TIMEOUT_S = 1800
_FICLONE = 0x40049409  # the ioctl behind `cp --reflink`
_SHARED_SYSTEMS = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "fuse.", "9p")
_RELEASE = re.compile(r"release (\d+\.\d+)")


def words(command: Sequence[str], timeout_s: float = _TIMEOUT_S) -> str | None:
    """Standard output of a command; None when it is absent, fails or hangs.

    Bytes that are not UTF-8 are replaced.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def python() -> tuple[str, bool]:
    """Python's version, and whether it is in a virtual environment."""
    return platform.python_version(), sys.prefix != sys.base_prefix


def installed(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_folder(name: str) -> Path | None:
    """The folder of a package that can be imported, which is not done."""
    spec = importlib.util.find_spec(name)
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) if folders else None


def lock() -> Path:
    """The lock that this environment was made from: that for older GPUs if torch is its one."""
    is_old = (torch_cuda() or "").startswith("12.") and LOCK_CUDA12.is_file()
    return LOCK_CUDA12 if is_old else LOCK


def pins(lock: Path) -> dict[str, str]:
    """Pinned versions by package, those that apply to this Python and system."""
    if not lock.is_file():
        return {}
    versions = {}
    for line in lock.read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate():
                versions[one.name] = next(iter(one.specifier)).version
    return versions


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, read from its files; None for a CPU build."""
    spec = importlib.util.find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    if version is None or not version.is_file():
        return None
    match = re.search(r"^cuda\b[^=]*= '([\d.]+)'", version.read_text(), re.MULTILINE)
    return match[1] if match else None


def gpus() -> list[str]:
    """Name, driver and memory of each GPU, from its driver."""
    output = words(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    )
    return output.splitlines() if output else []


def capabilities() -> list[tuple[int, int]]:
    """Compute capability of each GPU, from its driver."""
    output = words(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    found = re.findall(r"^(\d+)\.(\d+)$", output or "", re.MULTILINE)
    return [(int(major), int(minor)) for major, minor in found]


def torch_code() -> list[str]:
    """What torch was compiled for, such as sm_90; torch is imported in a process of its own."""
    code = "import torch; print(*torch.cuda.get_arch_list())"
    return (words([sys.executable, "-c", code], _IMPORT_TIMEOUT_S) or "").split()


def nvcc() -> tuple[str, str] | None:
    """The CUDA compiler that torch would use, and its version."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    path = (
        Path(home, "bin", "nvcc")
        if home
        else Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc")
    )
    output = words([str(path), "--version"])
    release = _RELEASE.search(output or "")
    return (str(path), release[1]) if release else None


def compiler() -> str | None:
    """The C++ compiler that torch builds kernels with."""
    return shutil.which(os.environ.get("CXX", "c++"))


def kernels() -> tuple[bool, str]:
    """Whether gsplat renders the same on the GPU as torch alone, with figures or the error.

    In a separate process: kernels of another architecture or driver can crash it.
    """
    command = [sys.executable, "-m", "stages.splat.smoke"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_KERNELS_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False, f"no answer in {_KERNELS_TIMEOUT_S} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else f"ended with {done.returncode}"


def importable(module: str) -> str | None:
    """None if a module can be imported in a new process, else the last line of the error."""
    command = [sys.executable, "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["?"])[-1] if done.returncode else None


def weights_marker(folder: Path = Path("data/weights")) -> dict[str, dict] | None:
    """The result of stage `weights`, by net; None if it has not run."""
    marker = folder / "weights.json"
    return read_json(marker) if marker.is_file() else None


def torch_cache() -> Path:
    """torchvision's folder of downloads."""
    base = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(os.environ.get("TORCH_HOME", base / "torch")).expanduser() / "hub" / "checkpoints"


def free_bytes(path: Path) -> int:
    """Free bytes on the file system of a path, or of its nearest existing parent."""
    return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
    """The path or its nearest existing parent."""
    path = path.absolute()
    return path if path.exists() else existing(path.parent)


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Kind of the file system of a path, such as ext4, nfs4 or lustre."""
    if not mounts.is_file():
        return "unknown"
    where, best, kind = str(existing(path).resolve()), "", "unknown"
    for line in mounts.read_text().splitlines():
        _, point, name, *_ = line.split()
        point = point.replace("\\040", " ")
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind


def is_shared(kind: str) -> bool:
    """Whether a kind of file system can be shared between machines."""
    return kind.startswith(_SHARED_SYSTEMS)


def link_types(cache: Path, workspace: Path = Path()) -> list[str]:
    """Kinds of links from the cache to the workspace that work here."""
    with (
        tempfile.TemporaryDirectory(dir=existing(cache)) as there,
        tempfile.TemporaryDirectory(dir=workspace, prefix=".probe") as here,
    ):
        source = Path(there, "probe")
        source.write_bytes(b"probe")
        tried = {"reflink": _reflink, "hardlink": os.link, "symlink": os.symlink}
        return [name for name, link in tried.items() if _works(link, source, Path(here, name))]


def slurm() -> str | None:
    """SLURM's version."""
    return words(["sbatch", "--version"])


def git_status() -> tuple[str | None, list[str]] | None:
    """The commit, and changed files in git's short format; None outside a repository."""
    status = words(["git", "status", "--porcelain"])
    return (
        None
        if status is None
        else (words(["git", "rev-parse", "--short", "HEAD"]), status.splitlines())
    )


def _works(link: object, source: Path, target: Path) -> bool:
    try:
        link(source, target)
    except OSError:
        return False
    return True


def _reflink(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("wb") as clone:
        fcntl.ioctl(clone.fileno(), _FICLONE, original.fileno())
