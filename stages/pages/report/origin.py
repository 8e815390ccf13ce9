"""Provenance of a report: revision, digests of params and samples, versions."""

import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from stages.pages.report.results import Results
from stages.run.files import file_hash
from stages.run.plurals import counted

PARAMS = Path("params.yaml")
# Packages that affect results; all versions are in requirements.lock.
PACKAGES = (
    "torch",
    "torchvision",
    "gsplat",
    "diffusers",
    "accelerate",
    "lpips",
    "pycolmap",
    "numba",
    "numpy",
    "dvc",
)


def origin(results: Results, *, brief: bool = False) -> dict[str, Mapping[str, str]]:
    """Lines of the section Origin, by heading; `brief` are those that no machine changes."""
    first = results.evaluations.of(results.downstream[0], results.study.methods[0])
    protocols = {
        scene: str(results.evaluations.of(scene, first.method).means["protocol"])
        for scene in results.evaluations.scenes
    }
    digests = {"params.yaml, SHA-256": file_hash(PARAMS)[:16] if PARAMS.is_file() else ""}
    digests["roles of the scenes, verdict"] = results.verdict[:16]
    if results.manifest:
        digests["samples of the tuning, verdict"] = str(results.manifest["verdict"])[:16]
    digests |= {
        f"samples of {scene}": str(row["digest"])[:16]
        for scene, row in results.pairs.items()
        if "digest" in row
    }
    results_alone = {"Digests": digests, "Protocol of the measures": protocols}
    if brief:
        return results_alone
    versions = {"python": platform.python_version(), **_versions()}
    return {"Revision": revision(), **results_alone, "Versions": versions}


def revision() -> dict[str, str]:
    """The commit of the code, and whether files differ from it."""
    commit = _git("show", "--no-patch", "--format=%H%n%cs%n%s")
    if not commit:
        return {"git": "no repository here"}
    full, date, subject = [*commit.splitlines(), "", ""][:3]
    changed = [line[3:] for line in _git("status", "--porcelain").splitlines()]
    code = [name for name in changed if not name.startswith(("metrics/", "dvc.lock"))]
    state = "code and params as committed"
    if code:
        state = f"{counted(len(code), 'file')} differ{'s' * (len(code) == 1)} from it"
    return {"commit": full[:12], "of": f"{date}  {subject}", "state": state}


def _git(*words: str) -> str:
    try:
        ended = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return ended.stdout.rstrip("\n") if ended.returncode == 0 else ""


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
