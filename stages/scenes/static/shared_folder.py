"""The prepared form of a static scene on disk: one folder that all kinds of camera share.

    .prep_complete                      what it was made from, by content
    images/  sparse/0/                  all photographs in one COLMAP model
    subsets/<kind>/{images,sparse/0}    the same world, the photographs of one kind
    subsets/<kind>/photographs.json     one hash of these as they came home
    splits/<kind>.txt                   their names
    metadata/{summary,mapping}.json
    covisible/<camera>/1x/val/*.png     pixels of eval frames that a camera's training views see
    alignments/<camera>_to_eval.npz     between the two normalised frames

The last two are made by evaluations, each when it is asked for.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stages.run.errors import UserError
from stages.run.files import file_hash, parse_json, read_json, safe_name, write_json
from stages.run.user_paths import is_empty

MARKER = ".prep_complete"
PARTS = ("images", "sparse", "subsets", "splits", "metadata")
PHOTOGRAPHS = "photographs.json"
SCRATCH = ".new.part"
# What evaluations add. In the graph it stays while the rest is made anew.
_ADDED = ("covisible", "alignments")


@dataclass(frozen=True)
class SharedFolder:
    """A prepared static scene."""

    folder: Path

    def check_whole(self) -> None:
        """Raise UserError when the scene is not prepared, or a preparation was cut short."""
        if not (self.folder / MARKER).is_file():
            raise UserError(
                self.folder, f"no {MARKER}: not prepared, or not to its end",
                fix="run static_prepare for this scene first",
            )  # fmt: skip

    def subset(self, kind: str) -> Path:
        """COLMAP dataset of one kind. Raises UserError when there is none of it."""
        found = self.folder / "subsets" / safe_name(kind, "subset")
        if not found.is_dir():
            kinds = sorted(path.name for path in found.parent.glob("*"))
            raise UserError(
                found, "not prepared", expected=f"one of {', '.join(kinds) or 'none yet'}",
                fix=f"put {kind} into static.cameras and run static_prepare",
            )  # fmt: skip
        return found

    def photographs(self, kind: str) -> str:
        """One hash of the photographs of a kind; empty in what older versions prepared."""
        facts = self.subset(kind) / PHOTOGRAPHS
        return read_json(facts)["photographs"] if facts.is_file() else ""

    def check_ours(self) -> None:
        """Raise UserError when the folder holds what no preparation wrote: it is never replaced."""
        if is_empty(self.folder) or self._marked() is not None:
            return
        found = {path.name for path in self.folder.iterdir()}
        # A preparation that was killed leaves its scratch folder.
        if SCRATCH in found or found <= set(_ADDED):
            return
        some = ", ".join(sorted(found)[:3])
        raise UserError(
            self.folder, f"holds {some}, which static_prepare did not make",
            expected=f"a new folder, or one with the {MARKER} that it wrote",
            fix="move it away, or name another folder with --prep-root",
        )  # fmt: skip

    def mask(self, camera: str, image: str) -> Path:
        """Pixels of an eval frame that a camera's training views see; folders of names stay."""
        inside = PurePosixPath(image).with_suffix(".png")
        assert not inside.is_absolute(), f"{image} is no name in a model"
        assert ".." not in inside.parts, f"{image} leads out of the masks' folder"
        return self.masks(camera) / "1x" / "val" / inside

    def masks(self, camera: str) -> Path:
        """Folder of a camera's masks."""
        return self.folder / "covisible" / safe_name(camera, "camera")

    def alignment(self, camera: str) -> Path:
        """How a camera's normalised frame lies to that of the eval frames."""
        return self.folder / "alignments" / f"{safe_name(camera, 'camera')}_to_eval.npz"

    @property
    def summary(self) -> Path:
        """Counts, errors, lenses and the light field's shape."""
        return self.folder / "metadata" / "summary.json"

    def is_made_from(self, origin: Mapping[str, Any]) -> bool:
        """Whether the folder is whole and was made from inputs and params of this content."""
        told = self._marked()
        return told == {"origin": origin, "made": self._contents()} if told else False

    def replaced_since(self, files: Mapping[str, str]) -> list[str]:
        """Names of photographs that were others when the folder was made; hashes by name."""
        before = (self._marked() or {"origin": {}})["origin"].get("files", {})
        return [name for name, digest in files.items() if before.get(name, digest) != digest]

    def replace_parts(self, scratch: Path, origin: Mapping[str, Any]) -> None:
        """Take over the parts that were built in `scratch`; the marker comes last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARKER).unlink(missing_ok=True)
        for part in PARTS:
            shutil.rmtree(self.folder / part, ignore_errors=True)
            (scratch / part).rename(self.folder / part)
        write_json(self.folder / MARKER, {"origin": origin, "made": self._contents()})

    def _marked(self) -> dict[str, Any] | None:
        """What our marker says; None for none, and for one of another program."""
        try:
            told = parse_json((self.folder / MARKER).read_bytes())
        except (OSError, ValueError):
            return None
        return told if isinstance(told, dict) and told.keys() == {"origin", "made"} else None

    def _contents(self) -> dict[str, str]:
        files = (file for part in PARTS for file in (self.folder / part).rglob("*"))
        return {
            file.relative_to(self.folder).as_posix(): file_hash(file)
            for file in sorted(files)
            if file.is_file()
        }
