"""Whether a run may replace an earlier result: only one of the same images.

Images are compared by content, since the datasets of two captures may have one name.
"""

from collections.abc import Callable
from pathlib import Path

from stages.run.artefacts import CAPTURE
from stages.run.errors import UserError
from stages.run.files import read_json, set_hash, write_json
from stages.run.user_paths import check_replaceable
from stages.scenes.image_folder import is_hidden
from stages.splat.captures.record import CaptureRecord

TRAINED = "train"  # of capture_train
CHECKPOINTS = "checkpoints"  # of static_train
EVALUATED = "eval_on_"
DATASET = "dataset"
FIXED = "fixed"  # holds a folder per fixer
FRAME = "frame.json"
STATS = "stats"
FIXED_JSON = "fixed.json"  # what was fixed, and by which weights

Hashes = Callable[[], frozenset[str]]  # of images, which are read only when needed


def claim(result: Path, source: Path, hashes: Hashes, match_string: str) -> None:
    """Refuse a folder that holds anything but an earlier result of the images in `source`."""
    trained = result / TRAINED
    if (trained / CAPTURE).is_file():
        record = check_trained_on(trained, source, hashes)
        if record.match_string != match_string:
            raise UserError(
                result,
                f"holds the result of {record.name}, match string {record.match_string!r}",
                expected=f"match string {match_string!r}",
                fix="name another folder, or remove this one",
            )
        return
    # Allowed are what a killed run leaves, estimated poses and, where DVC has removed a result to
    # reproduce it, evaluations on other datasets and by fixers, and the files of `gsplat_stats`.
    paths = list(result.iterdir()) if result.is_dir() else []
    names = {path.name for path in paths if not is_hidden(path.name, path.is_dir())}
    if not all(name in (DATASET, FIXED, STATS) or name.startswith(EVALUATED) for name in names):
        raise UserError(
            result,
            "not empty, and no result of a capture",
            expected="a new folder, or one that capture_train wrote",
            fix="name another folder",
        )


def claim_trained(trained: Path, source: Path, hashes: Hashes, images_hash: str = "") -> None:
    """Refuse to replace Gaussians of other images than those of `source`, or other files.

    The arguments are those of `check_trained_on`.
    """
    check_replaceable(trained, CAPTURE)
    if (trained / CAPTURE).is_file():
        check_trained_on(trained, source, hashes, images_hash)


def check_trained_on(
    trained: Path, source: Path, hashes: Hashes, images_hash: str = ""
) -> CaptureRecord:
    """The record of Gaussians in `trained`, checked to be of the images in `source`.

    `images_hash` is the hash of these, computed from `hashes` when empty. Raises UserError for
    Gaussians of other images.
    """
    record, ours = CaptureRecord.read(trained), hashes()
    wanted, used = images_hash or set_hash(ours), set(record.sha256.values())
    # Results of older versions only record the images that they used.
    if record.images_hash != wanted if record.images_hash else not used <= ours:
        digest = f" ({record.images_hash[:8]})" if record.images_hash else ""
        raise UserError(
            trained.parent,
            f"holds the result of a dataset {record.name}{digest}; the images of "
            f"{source} ({wanted[:8]}) are others, with {len(used & ours)} of the {len(used)} that "
            "it used",
            expected="a new folder, or the images that it was trained on",
            fix="name another folder (RESULT_DIR or RESULT_ROOT of a script), or remove this one",
        )
    return record


def claim_evaluated(folder: Path, source: Path, hashes: Hashes, file: str = "") -> None:
    """Refuse to replace a folder that is no evaluation on the images in `source`.

    Nor is that of another `file` of Gaussians in one folder replaced.
    """
    check_replaceable(folder, FRAME)
    if not (folder / FRAME).is_file():
        return
    frame = read_json(folder / FRAME)
    measured, ours = frame.get("photographs", ""), set_hash(hashes())
    if frame.get("gaussians", "") != file:
        raise UserError(
            folder,
            f"is the evaluation of {frame.get('gaussians') or 'the result'}",
            expected=f"a folder for that of {file or 'the result'}",
            fix="name another folder with --output",
        )
    if measured and measured != ours:
        raise UserError(
            folder,
            f"was measured on other images ({measured[:8]}) than those of {source} ({ours[:8]})",
            expected="evaluation sets of different names, or the same images",
            fix=f"give the folder {source} another name, or remove {folder}",
        )


def claim_fixed(folder: Path, images: frozenset[str], fixer: str) -> None:
    """Refuse to replace a folder that has no fixed views, or those of other images or weights.

    Args:
        folder: of the fixed views.
        images: hashes of the ground truth.
        fixer: hash of the weights; empty where they may have changed.
    """
    check_replaceable(folder, FIXED_JSON)
    if not (folder / FIXED_JSON).is_file():
        return
    before = read_json(folder / FIXED_JSON)
    for kind, hashed in (("photographs", set_hash(images)), ("fixer", fixer)):
        measured = str(before.get(kind, ""))
        if hashed and measured != hashed:
            what = "by other weights" if kind == "fixer" else "on other images"
            raise UserError(
                folder,
                f"holds fixed views {what} ({measured[:8]}, not {hashed[:8]})",
                expected="fixers, and evaluation sets, of different names",
                fix=f"give the fixer's folder another name, or remove {folder}",
            )


def record_fixed(folder: Path, images: frozenset[str], fixer: str, references: str = "") -> None:
    """Write what `claim_fixed` compares, and the policy of references where it is another's."""
    content = {"photographs": set_hash(images), "fixer": fixer}
    write_json(folder / FIXED_JSON, content | ({"references": references} if references else {}))
