"""Prepared scenes of other programs, and their adoption.

Such a folder has one model of all images in sparse/ or sparse/0 with images/, and usually by kind
of camera subsets/<kind>/{images,sparse}, or lists of names in splits/<kind>.txt. What is adopted is
written elsewhere, below `splatfix/` in the folder itself where that is the scene's shared folder;
no file of the other program is changed. Its masks and alignments are copied there, too, where an
evaluation takes or replaces them.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stages.run.errors import UserError
from stages.run.files import file_hash, set_hash, write_json
from stages.run.user_paths import is_empty
from stages.scenes.colmap import open_model
from stages.scenes.colmap_lenses import find_model, read_posed, write_posed
from stages.scenes.dataset import Dataset
from stages.scenes.static.image_placement import CopyMode, place
from stages.scenes.static.input_folders import EVAL, EVAL_NAMES
from stages.scenes.static.input_images import PREFIXES
from stages.scenes.static.shared_folder import IMAGES_HASH, MARKER, PARTS, SCRATCH, SharedFolder

_LOGGER = logging.getLogger(__name__)

_INPUTS = ("images", "sparse", "subsets", "splits", "covisible", "alignments")


def is_foreign(folder: Path) -> bool:
    """Whether a folder is a prepared scene of another program: subsets or a model, not ours."""
    # Scratch and hashes are what a stopped run of ours leaves without a marker.
    stopped = (folder / SCRATCH).exists() or any(folder.glob(f"subsets/*/{IMAGES_HASH}"))
    if not folder.is_dir() or stopped or SharedFolder(folder).is_ours():
        return False
    subsets = [path for path in folder.glob("subsets/*") if (path / "sparse").is_dir()]
    models = [folder / "sparse", folder / "sparse" / "0"]
    return bool(subsets) or any(any(model.glob("cameras.*")) for model in models)


def refusal(folder: Path) -> UserError:
    """The error for preparing a scene in another program's folder."""
    return UserError(
        folder,
        "was prepared by another program; nothing in it is replaced",
        expected="a new folder, or one that static_prepare wrote",
        fix="use its poses and images as they are with static.skip_vggt: true (SKIP_VGGT=1), "
        "prepare in another folder with --prep-root (PREP_ROOT), or move it aside and prepare "
        "anew with runtime.static.force: true (FORCE=1)",
    )


@contextmanager
def moved_aside(folder: Path) -> Iterator[None]:
    """Rename a folder to the first free `<name>.backup<n>`; after an error or a stop, back.

    What was prepared in its place by then is removed.
    """
    number = 1
    while (backup := folder.with_name(f"{folder.name}.backup{number}")).exists():
        number += 1
    try:
        folder.rename(backup)
        _LOGGER.warning("%s: was prepared by another program; moved to %s", folder, backup)
        yield
    except BaseException:
        if backup.exists():  # else it could not be renamed
            for part in (*PARTS, SCRATCH):
                shutil.rmtree(folder / part, ignore_errors=True)
            (folder / MARKER).unlink(missing_ok=True)
            if is_empty(folder):
                backup.rename(folder)
                _LOGGER.warning("%s: back in its place, since nothing was prepared", folder)
        raise


def backups_of(folder: Path) -> list[Path]:
    """Where `moved_aside` left folders of other programs."""
    return sorted(folder.parent.glob(f"{folder.name}.backup*"))


def origin_of(folder: Path, kinds: Sequence[str]) -> dict[str, Any]:
    """Hashes of all files that an adoption may read, and the kinds of camera."""
    files = sorted(path for part in _INPUTS for path in (folder / part).rglob("*"))
    hashes = {p.relative_to(folder).as_posix(): file_hash(p) for p in files if p.is_file()}
    return {"version": 1, "adopted": True, "files": hashes, "cameras": list(kinds)}


def adopt(folder: Path, scratch: Path, kinds: Sequence[str], mode: CopyMode) -> dict[str, Any]:
    """Write another program's scene as our parts into `scratch`; returns the metrics.

    Images keep their names and bytes, subsets their models. Raises UserError when images of a kind
    are in none of its folders and lists.
    """
    counts: dict[str, int] = {}
    mapping: dict[str, Any] = {}
    points = 0
    for kind in (*kinds, EVAL):
        subset = scratch / "subsets" / kind
        files, count = _subset(folder, kind, subset / "sparse" / "0")
        for name, path in files.items():
            place(path, subset / "images" / name, mode)
            source = path.relative_to(folder).as_posix()
            mapping[f"{kind}/{name}"] = {"subset": kind, "source": source, "registered": True}
        hashes = [file_hash(path) for path in files.values()]
        write_json(subset / IMAGES_HASH, {"photographs": set_hash(hashes)})
        split = scratch / "splits" / f"{kind}.txt"
        split.parent.mkdir(parents=True, exist_ok=True)
        split.write_text("".join(f"{name}\n" for name in files))
        counts[f"{kind}_registered"] = len(files)
        points = max(points, count)
        Dataset.read(subset)  # raises for a subset that cannot be trained on
    total = sum(counts.values())
    metrics = {
        "images": total,
        "registered": total,
        **counts,
        "points": points,
        "reprojection_error_px": None,
    }
    method = f"prepared by another program in {folder}, as it is"
    write_json(scratch / "metadata" / "mapping.json", mapping)
    write_json(scratch / "metadata" / "summary.json", {"method": method, "metrics": metrics})
    return metrics


def adopt_masks(folder: Path, shared: SharedFolder, kinds: Sequence[str], mode: CopyMode) -> None:
    """Replace masks and alignments of a prepared scene by those of another program, if it has any.

    Masks lie in covisible/<kind>/1x/val, alignments in alignments/<kind>_to_eval.npz.
    """
    theirs = SharedFolder(folder)
    for kind in kinds:
        masks = sorted(theirs.masks_of_frames(kind).rglob("*.png"))
        if masks:
            shutil.rmtree(shared.masks(kind), ignore_errors=True)
        for path in masks:
            place(path, shared.masks(kind) / path.relative_to(theirs.masks(kind)), mode)
        if theirs.alignment(kind).is_file():
            shared.alignment(kind).unlink(missing_ok=True)
            place(theirs.alignment(kind), shared.alignment(kind), mode)
        if masks:
            _LOGGER.info("%s: its %d masks for %s are taken along", folder, len(masks), kind)


def _subset(folder: Path, kind: str, sparse: Path) -> tuple[dict[str, Path], int]:
    """The images of a kind by name, and its number of points; its model is written to `sparse`."""
    names = EVAL_NAMES if kind == EVAL else (kind,)
    subsets = [folder / "subsets" / name for name in names]
    for subset in subsets:
        if (subset / "images").is_dir() and find_model(subset) is not None:
            dataset = Dataset.read(subset)
            shutil.copytree(dataset.model, sparse, ignore=_without_models)
            return {view.name: view.image_path for view in dataset.views}, len(dataset.points)
    lists = [folder / "splits" / f"{name}.txt" for name in names]
    images = _named(folder, kind, lists)
    if not images:
        looked_for = ", ".join(str(path) for path in (*subsets, *lists))
        raise UserError(
            folder,
            f"no images of {kind}: not in {looked_for}",
            expected=f"one of these, or images {PREFIXES[kind]}__* in {folder / 'images'} and in "
            f"the model in {folder / 'sparse'}",
            fix="add them" + ("" if kind == EVAL else f", or take {kind} out of static.cameras"),
        )
    return images, _write_part(folder, list(images), sparse)


def _named(folder: Path, kind: str, lists: Sequence[Path]) -> dict[str, Path]:
    """Images of the whole model that a list names, or else by the prefix of a kind."""
    if find_model(folder) is None or not (folder / "images").is_dir():
        return {}
    views = {view.name: view for view in Dataset.read(folder).views}
    prefix = f"{PREFIXES[kind]}__"
    listed = [path.read_text().splitlines() for path in lists if path.is_file()]
    if listed:
        lines = [line.strip() for line in listed[0]]
        names = [next((n for n in (line, prefix + line) if n in views), "") for line in lines]
    else:
        names = [name for name in views if name.startswith(prefix)]
    return {name: views[name].image_path for name in names if name}


def _write_part(folder: Path, names: Sequence[str], sparse: Path) -> int:
    """Write the model of some images with the points observed in them; returns how many."""
    model_folder = find_model(folder)
    assert model_folder is not None, "the images are named by a model"
    model, posed = open_model(model_folder), read_posed(model_folder)
    ids = {image.image_id for image in model.images.values() if image.name in set(names)}
    points = [model.points3D[number] for number in sorted(model.points3D)]
    tracks = [{element.image_id for element in point.track.elements} for point in points]
    # Without tracks no point is known to be visible anywhere, and all are used.
    visible = [bool(track & ids) for track in tracks] if any(tracks) else [True] * len(points)
    kept = np.array(visible, bool)
    write_posed(
        sparse, [posed.images[name] for name in names], posed.points[kept], posed.colors[kept]
    )
    return int(kept.sum())


def _without_models(folder: str, names: list[str]) -> list[str]:
    """Entries of a model's folder that are no files of a model, for `copytree`."""
    return [name for name in names if Path(name).suffix not in (".bin", ".txt")]
