"""A prepared static scene on disk: one folder that all kinds of camera share.

    .prep_complete                      hashes of its inputs and contents
    images/  sparse/0/                  all images in one COLMAP model
    subsets/<kind>/{images,sparse/0}    the same world, the images of one kind
    subsets/<kind>/photographs.json     one hash of these, before any preparation
    splits/<kind>.txt                   their names
    metadata/{summary,mapping}.json
    covisible/<camera>/1x/val/*.png     pixels of eval frames covisible with a camera's images
    alignments/<camera>_to_eval.npz     between the two normalised frames

Evaluations add the last two. In a folder that another program prepared, all of this lies in
`splatfix/`, and nothing else is changed.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stages.run.errors import UserError
from stages.run.files import file_hash, parse_json, read_json, safe_name, write_json
from stages.run.plurals import first_few
from stages.run.user_paths import is_empty

MARKER = ".prep_complete"
PARTS = ("images", "sparse", "subsets", "splits", "metadata")
IMAGES_HASH = "photographs.json"
SCRATCH = ".new.part"
ADOPTED = "splatfix"  # our part of another program's folder
# Added by evaluations. In the graph these stay when the rest is replaced.
_OF_EVALUATIONS = ("covisible", "alignments")


@dataclass(frozen=True)
class SharedFolder:
    """A prepared static scene."""

    folder: Path

    @classmethod
    def of(cls, folder: Path) -> "SharedFolder":
        """The prepared scene in `folder`, or in our part of it where another program prepared it.

        Raises UserError when the scene is not prepared or its preparation was interrupted.
        """
        own, adopted = cls(folder), cls(folder / ADOPTED)
        if own.is_ours():
            return own
        if adopted.is_ours():
            return adopted
        if (folder / MARKER).is_file():
            raise UserError(
                folder,
                f"its {MARKER} is of another program",
                expected=f"a scene that static_prepare wrote, here or in {adopted.folder}",
                fix="run static_prepare for this scene with static.skip_vggt: true (SKIP_VGGT=1), "
                "which uses it as it is",
            )
        raise UserError(
            folder,
            f"no {MARKER}: not prepared, or only in part",
            fix="run static_prepare for this scene first",
        )

    def is_ours(self) -> bool:
        """Whether static_prepare has completed the folder."""
        return self._marker() is not None

    def subset(self, kind: str) -> Path:
        """COLMAP dataset of one kind of camera. Raises UserError when there is none."""
        subset = self.folder / "subsets" / safe_name(kind, "subset")
        if not subset.is_dir():
            kinds = sorted(path.name for path in subset.parent.glob("*"))
            raise UserError(
                subset,
                "not prepared",
                expected=f"one of {', '.join(kinds) or 'none yet'}",
                fix=f"add {kind} to static.cameras and run static_prepare",
            )
        return subset

    def images_hash(self, kind: str) -> str:
        """One hash of the images of a kind; empty in scenes that older versions prepared."""
        path = self.subset(kind) / IMAGES_HASH
        return read_json(path)["photographs"] if path.is_file() else ""

    def check_replaceable(self) -> None:
        """Raise UserError when the folder holds files that static_prepare did not write."""
        if is_empty(self.folder) or self._marker() is not None:
            return
        names = {path.name for path in self.folder.iterdir()}
        # A preparation that was killed leaves its scratch folder.
        if SCRATCH in names or names <= set(_OF_EVALUATIONS):
            return
        raise UserError(
            self.folder,
            f"holds {first_few(sorted(names))}, which static_prepare did not write",
            expected=f"a new folder, or one with its {MARKER}",
            fix="move it away, or name another folder with --prep-root",
        )

    def check_same_scene(self, raw: Path, origin: Mapping[str, Any]) -> None:
        """Raise UserError when the folder was made from files of which `origin` has none.

        A folder away from the scene may be that of another scene, which is not replaced.
        """
        before = set((self._marker() or {"origin": {}})["origin"].get("files", {}).values())
        if before and before.isdisjoint(origin["files"].values()):
            raise UserError(
                self.folder,
                f"holds the preparation of another scene: none of its {len(before)} files is in "
                f"{raw}",
                expected="a folder for each scene",
                fix="name another folder (PREP_ROOT, --prep-root), or set runtime.static.force "
                "(FORCE=1) to replace it",
            )

    def mask(self, camera: str, image: str) -> Path:
        """Mask of an eval frame's covisible pixels; `image` may have folders in its name."""
        name = PurePosixPath(image).with_suffix(".png")
        assert not name.is_absolute(), f"{image} is no name in a model"
        assert ".." not in name.parts, f"{image} leads out of the masks' folder"
        return self.masks_of_frames(camera) / name

    def masks_of_frames(self, camera: str) -> Path:
        """Folder of a camera's masks as evaluations read them, at full size."""
        return self.masks(camera) / "1x" / "val"

    def masks(self, camera: str) -> Path:
        """Folder of all that evaluations store with a camera's masks."""
        return self.folder / "covisible" / safe_name(camera, "camera")

    def alignment(self, camera: str) -> Path:
        """File of the transforms between the frames of a camera and of the eval frames."""
        return self.folder / "alignments" / f"{safe_name(camera, 'camera')}_to_eval.npz"

    @property
    def summary(self) -> Path:
        """File of counts, errors, lenses and the light field's shape."""
        return self.folder / "metadata" / "summary.json"

    def is_made_from(self, origin: Mapping[str, Any]) -> bool:
        """Whether the folder is complete and was made from these inputs and params."""
        marker = self._marker()
        return marker == {"origin": origin, "made": self._contents()} if marker else False

    def replaced_since(self, files: Mapping[str, str]) -> list[str]:
        """Names of input files that had other contents when the folder was made.

        `files` are their hashes by name.
        """
        before = (self._marker() or {"origin": {}})["origin"].get("files", {})
        return [name for name, digest in files.items() if before.get(name, digest) != digest]

    def replace_parts(self, scratch: Path, origin: Mapping[str, Any]) -> None:
        """Replace all parts by those in `scratch`; the marker is written last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARKER).unlink(missing_ok=True)
        for part in PARTS:
            shutil.rmtree(self.folder / part, ignore_errors=True)
            if (scratch / part).is_dir():  # images and sparse of an adopted scene are elsewhere
                (scratch / part).rename(self.folder / part)
        write_json(self.folder / MARKER, {"origin": origin, "made": self._contents()})

    def _marker(self) -> dict[str, Any] | None:
        """Contents of the marker; None without one, and for that of another program."""
        try:
            marker = parse_json((self.folder / MARKER).read_bytes())
        except (OSError, ValueError):
            return None
        is_ours = isinstance(marker, dict) and marker.keys() == {"origin", "made"}
        return marker if is_ours else None

    def _contents(self) -> dict[str, str]:
        files = (file for part in PARTS for file in (self.folder / part).rglob("*"))
        return {
            file.relative_to(self.folder).as_posix(): file_hash(file)
            for file in sorted(files)
            if file.is_file()
        }
