"""What DVC's settings should be where a workspace lies, told before jobs of several hosts meet."""

import os
from pathlib import Path

from stages.jobs.pipeline import Pipeline

_NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "fuse.sshfs", "glusterfs")


def storage_notes(root: Path, pipeline: Pipeline) -> list[str]:
    """Advice on locks and on the cache; empty where nothing is to be changed."""
    notes = []
    kind = file_system(root, Path("/proc/mounts").read_text())
    if kind.startswith(_NETWORK) and not pipeline.locks_by_hard_link:
        notes.append(
            f"{root} is on {kind}, where DVC's lock can hang: `dvc config --local "
            "core.hardlink_lock true && rm -f .dvc/tmp/lock .dvc/tmp/rwlock*` while no job runs"
        )
    cache = pipeline.cache_folder
    if cache.exists() and os.stat(cache).st_dev != os.stat(root).st_dev:
        notes.append(
            f"the cache {cache} is on another file system, so results are copied: "
            "`dvc config --local cache.type symlink` links them"
        )
    return notes


def file_system(path: Path, mounts: str) -> str:
    """Type of the file system of a path, by the table of /proc/mounts.

    >>> file_system(Path("/home/a/b"), "x / ext4 rw 0 0\\ny:/h /home nfs4 rw 0 0\\n")
    'nfs4'
    """
    best, kind = "", ""
    for line in mounts.splitlines():
        point, name = line.split()[1:3]
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, name
    return kind
