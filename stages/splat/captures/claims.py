"""Whether a run may write where an earlier one has: the same photographs, whatever they are called.

Names decide nothing: the datasets of two captures may lie in folders of one name.
"""

from collections.abc import Callable
from pathlib import Path

from stages.run.artefacts import CAPTURE
from stages.run.errors import UserError
from stages.run.files import read_json, set_hash
from stages.run.user_paths import check_replaceable
from stages.scenes.image_folder import is_hidden
from stages.splat.captures.training import CaptureRecord

TRAINED = "train"
EVALUATED = "eval_on_"
DATASET = "dataset"
FRAME = "frame.json"

Hashes = Callable[[], frozenset[str]]  # of photographs, read when they are needed


def claim(result: Path, source: Path, hashes: Hashes, match_string: str) -> None:
    """Refuse a folder that holds anything but an earlier result of the photographs in `source`."""
    trained = result / TRAINED
    if (trained / CAPTURE).is_file():
        held = check_trained_on(trained, source, hashes)
        if held.match_string != match_string:
            raise UserError(
                result, f"holds the result of {held.name}, match string {held.match_string!r}",
                expected=f"match string {match_string!r}",
                fix="name another folder, or remove this one",
            )  # fmt: skip
        return
    # What a killed run leaves, the poses that this one starts from, and, where DVC has removed a
    # result to make it anew, what was measured on other datasets.
    found = list(result.iterdir()) if result.is_dir() else []
    names = {path.name for path in found if not is_hidden(path.name, path.is_dir())}
    if not all(name == DATASET or name.startswith(EVALUATED) for name in names):
        raise UserError(
            result, "not empty, and no result of a capture",
            expected="a new folder, or one that capture_train wrote", fix="name another folder",
        )  # fmt: skip


def claim_trained(trained: Path, source: Path, hashes: Hashes, photographs: str = "") -> None:
    """Refuse to replace a folder of Gaussians that are of others than the photographs of `source`.

    As `check_trained_on`; a folder with other things in it is refused as well.
    """
    check_replaceable(trained, CAPTURE)
    if (trained / CAPTURE).is_file():
        check_trained_on(trained, source, hashes, photographs)


def check_trained_on(
    trained: Path, source: Path, hashes: Hashes, photographs: str = ""
) -> CaptureRecord:  # fmt: skip
    """Facts of the Gaussians in `trained`, which must be of the photographs in `source`.

    Their identity is `photographs`, if that is given, and else that of all `hashes`. Raises
    UserError for others.
    """
    facts, ours = CaptureRecord.read(trained), hashes()
    wanted, used = photographs or set_hash(ours), set(facts.sha256.values())
    # Results of older versions know only the photographs that they used.
    if facts.photographs != wanted if facts.photographs else not used <= ours:
        told = f" ({facts.photographs[:8]})" if facts.photographs else ""
        raise UserError(
            trained.parent, f"holds the result of a dataset {facts.name}{told}; the photographs of "
            f"{source} ({wanted[:8]}) are others: {len(used & ours)} of the {len(used)} that it is "
            "of are among them",
            expected="a new folder, or the photographs that it is of",
            fix="name another folder, or remove this one",
        )  # fmt: skip
    return facts


def claim_evaluated(folder: Path, source: Path, hashes: Hashes) -> None:
    """Refuse to replace a folder that is no evaluation on the photographs in `source`."""
    check_replaceable(folder, FRAME)
    if not (folder / FRAME).is_file():
        return
    held = read_json(folder / FRAME).get("photographs", "")
    ours = set_hash(hashes())
    if held and held != ours:
        raise UserError(
            folder, f"was measured on other photographs ({held[:8]}) than those of {source} "
            f"({ours[:8]})",
            expected="evaluation sets of different names, or the same photographs",
            fix=f"give the folder {source} another name, or remove {folder}",
        )  # fmt: skip
