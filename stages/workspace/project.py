"""Checks of the project: weights, git, DVC's cache, remote and locks."""

import re
from collections.abc import Iterator
from pathlib import Path

from stages.graph.repository_lock import holder_of_repository
from stages.graph.settings import Settings, read_settings
from stages.run.plurals import counted, first_few
from stages.run.settings.params import Params, did_you_mean
from stages.workspace import probes
from stages.workspace.backbones import BACKBONE_FILES, place_of
from stages.workspace.findings import FAIL, OK, WARN, Finding

# What base.source may be; tests compare them with stages.difix.weights.names.
CHECKPOINTS = (
    "shipped",
    "train",
    "random",
    "nvidia/difix_ref",
    "nvidia/difix",
    "stabilityai/sd-turbo",
)
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", re.ASCII)
_UNMERGED = ("UU", "AA", "DD", "AU", "UA", "DU", "UD")


def lpips() -> Iterator[Finding]:
    section = Params.read().raw["weights"]
    nets, path = [str(net) for net in section["nets"]], str(section["path"] or "")
    marker = probes.weights_marker()
    for net in nets:
        name, known = f"LPIPS {net}", (marker or {}).get(net)
        if known and known["found"]:
            yield Finding(name, OK, f"in data/weights, from {known['from']}")
            continue
        again, place = "dvc repro -f weights && dvc repro", place_of(net, path)
        if place:
            fix = again if known else ""
            yield Finding(name, WARN if known else OK, f"in {place}; stage weights uses it", fix)
        elif section["download"] and not known:
            yield Finding(name, OK, "not here; stage weights downloads torchvision's file")
        else:
            reason = known["reason"] if known else "weights.download is false"
            fix = f"put {BACKBONE_FILES[net]} into torchvision's cache or weights.path; {again}"
            found = f"none, so neither measured nor a loss of the tuning: {reason}"
            yield Finding(name, WARN, found, fix)


def fixer() -> Iterator[Finding]:
    raw = Params.read().raw
    source, section = str(raw["base"]["source"]), raw["runtime"]["base"]
    cache = Path(str(section["cache_dir"]))
    repo = source.partition("@")[0]
    folder = cache / f"models--{repo.replace('/', '--')}"
    hint = "" if repo in CHECKPOINTS else did_you_mean(repo, list(CHECKPOINTS))
    hint = f"; {hint}" if hint else ""
    if source in ("shipped", "train", "random"):
        yield Finding("fixer", OK, f"base.source is {source}: no weights are downloaded")
    elif Path(source).expanduser().exists() or folder.is_dir():
        yield Finding("fixer", OK, f"{source} is here")
    elif not HUB_ID.fullmatch(source):
        yield Finding(
            "fixer",
            FAIL,
            f"base.source: no file, folder or hub id {source!r}{hint}",
            "name one that exists; see `python -m stages.check`",
        )
    elif section["download"]:
        yield Finding(
            "fixer",
            WARN,
            f"{source} is not in {cache}; stage base downloads it{hint}",
            "dvc repro base, on a machine with a network",
        )
    else:
        told = f"{source} is not in {cache}, and runtime.base.download is false"
        yield Finding(
            "fixer", FAIL, told, "set runtime.base.download: true, or base.source: shipped"
        )


def git() -> Iterator[Finding]:
    status = probes.git_status()
    if status is None:
        yield Finding("git", FAIL, "no repository, or no git", "git clone this repository again")
        return
    commit, changed = status
    unmerged = [line[3:] for line in changed if line[:2] in _UNMERGED]
    if unmerged:
        fix = "resolve params.yaml, then `git checkout --ours dvc.lock`, dvc repro and git add"
        yield Finding("git", FAIL, f"unmerged: {first_few(unmerged)}", fix)
    elif commit is None:
        yield Finding("git", WARN, "no commit yet: experiments need one", "git commit")
    elif changed:
        yield Finding("git", OK, f"{commit}, {counted(len(changed), 'file')} changed since")
    else:
        yield Finding("git", OK, f"{commit}, nothing changed since")


def dvc() -> Iterator[Finding]:
    settings = read_settings()
    if settings is None:
        yield Finding("dvc", FAIL, "no .dvc folder here", "run it from the root of the repository")
        return
    yield _links(settings)
    if not settings.remotes:
        yield Finding(
            "remote",
            WARN,
            "none: results are on this disk only",
            "dvc remote add -d store s3://BUCKET/PATH, then dvc push",
        )
    elif settings.default_remote not in settings.remotes:
        yield Finding(
            "remote",
            WARN,
            f"{first_few(list(settings.remotes))}, none is the default",
            f"dvc remote default {next(iter(settings.remotes))}",
        )
    else:
        name = settings.default_remote
        address = settings.remotes[name]
        lacks_s3 = address.startswith("s3:") and probes.installed("dvc-s3") is None
        if lacks_s3:
            yield Finding("remote", FAIL, f"{name}, {address}", "uv pip install dvc-s3")
        elif address.startswith("s3:") and name not in settings.with_read_timeout:
            yield Finding(
                "remote",
                WARN,
                f"{name}, {address}: a server that does not answer is waited for forever",
                f"dvc remote modify {name} read_timeout 30",
            )
        else:
            yield Finding("remote", OK, f"{name}, {address}")
    kind = probes.file_system(Path(".dvc"))
    busy = holder_of_repository(Path(), hardlink=settings.hardlink_lock)
    if probes.is_shared(kind) and not settings.hardlink_lock:
        yield Finding(
            "locks",
            WARN,
            f"the repository is on {kind}, where file locks fail or hang",
            "dvc config --local core.hardlink_lock true && rm -f .dvc/tmp/lock .dvc/tmp/rwlock*",
        )
    elif busy is not None:
        yield Finding("locks", WARN, f"DVC's lock is {busy.got}", busy.fix)
    else:
        yield Finding("locks", OK, f"the repository is on {kind}")


def _links(settings: Settings) -> Finding:
    possible = probes.link_types(settings.cache)
    kind = next((one for one in settings.link_types if one in (*possible, "copy")), "copy")
    version = probes.installed("dvc")
    if kind != "copy" or not possible:
        return Finding("dvc", OK, f"{version}, cache to workspace by {kind}")
    types = ",".join([*possible, "copy"])
    return Finding(
        "dvc",
        OK,
        f"{version}, cache to workspace by copy: data takes twice its size",
        f"dvc config --local cache.type {types}, for large data",
    )
