"""Calibration archives of Lytro cameras: the camera's serial and the distance between its views.

An archive is a tar, or a folder, with `<serial>/cal_file_manifest.json` (or `unitdata/`), which
lists geometry files by content hash, and with a white image's metadata `<name>.TXT` for each. It is
read member by member and never unpacked.
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stages.run.errors import UserError
from stages.run.files import parse_json

_MANIFEST = "cal_file_manifest.json"
_MAX_BYTES = 16 * 2**20  # of a text file in an archive


@dataclass(frozen=True)
class LytroCalibration:
    """The facts of an archive that a light field's rig needs."""

    serial: str | None  # None when neither the archive nor its name has one
    step_m: float | None  # distance between neighbouring views, None when unknown


def read_calibration_archive(path: Path, reference: str | None = None) -> LytroCalibration:
    """Read an archive; `reference` is the hash of the light field's geometry file, if known.

    Raises UserError for any other archive, and for members outside it.
    """
    texts = dict(_folder_texts(path) if path.is_dir() else _tar_texts(path))
    manifests = [name for name in texts if name.name == _MANIFEST]
    if len(manifests) != 1:
        raise UserError(
            path,
            f"{len(manifests)} files {_MANIFEST}",
            expected=f"one, in a folder that is named by the camera's serial, in {path.name}",
            fix="copy the camera's own caldata-<serial>.tar again",
        )
    manifest = _json(path, manifests[0], texts[manifests[0]])
    entries = _entries(path, manifest)
    if reference is not None:
        entries = [entry for entry in entries if entry["hash"] == reference]
        if not entries:
            raise UserError(
                path,
                f"no calibration file with hash {reference}",
                expected="the archive of the camera that took the light field",
            )
    steps = {step for entry in entries if (step := _step(path, entry["name"], texts)) is not None}
    return LytroCalibration(
        _serial(path, manifests[0], manifest), steps.pop() if len(steps) == 1 else None
    )


def step_of(metadata: Mapping[str, Any]) -> float | None:
    """Distance between neighbouring views, metres, by a light field's or white image's metadata.

    The entrance pupil, focal length over f-number, is divided among as many views as there are
    pixels below a microlens.

    >>> lens = {"focalLength": 0.02, "fNumber": 2.0}
    >>> pitches = {"mla": {"lensPitch": 2e-05}, "sensor": {"pixelPitch": 2e-06}}
    >>> step_of({"frame": [{"devices": {"lens": lens, **pitches}}]})
    0.001
    """
    for devices in _values_of(metadata, "devices"):
        try:
            pupil = devices["lens"]["focalLength"] / devices["lens"]["fNumber"]
            views = devices["mla"]["lensPitch"] / devices["sensor"]["pixelPitch"]
            return round(abs(pupil / views), 9)
        except (KeyError, TypeError, ZeroDivisionError):
            continue
    return None


def geometry_reference(metadata: Mapping[str, Any]) -> str | None:
    """Hash of the light field's geometry file, if its metadata has it."""
    return next((str(value) for value in _values_of(metadata, "geometryCorrectionRef")), None)


def _tar_texts(path: Path) -> Iterator[tuple[PurePosixPath, str]]:
    if not path.is_file():
        raise UserError(path, "no such file", expected="a calibration archive (static.lf_calib)")
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = _inside(path, member.name)
                if member.issym() or member.islnk() or member.isdev():
                    raise UserError(
                        path,
                        f"{member.name} is a link or a device",
                        expected="files and folders only",
                    )
                opened = archive.extractfile(member) if _is_text(name) else None
                if opened is not None and member.size <= _MAX_BYTES:
                    yield name, opened.read().decode("utf-8", "replace")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(path, f"not a whole tar archive ({error})") from error


def _folder_texts(path: Path) -> Iterator[tuple[PurePosixPath, str]]:
    for file in sorted(path.rglob("*")):
        name = PurePosixPath(file.relative_to(path).as_posix())
        if file.is_file() and not file.is_symlink() and _is_text(name):
            yield name, file.read_text("utf-8", "replace")


def _inside(path: Path, member: str) -> PurePosixPath:
    """The member's name. Raises UserError when it leads out of the archive's folder."""
    name = PurePosixPath(member.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        raise UserError(
            path,
            f"member {member!r} is outside the archive",
            expected="names below its own folder",
            fix="do not trust this file; get another copy",
        )
    return name


def _is_text(name: PurePosixPath) -> bool:
    return name.suffix.lower() in (".json", ".txt")


def _json(path: Path, name: PurePosixPath, text: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: {name}:{error.lineno}", f"not JSON: {error.msg}") from error
    except ValueError as error:
        raise UserError(f"{path}: {name}", f"unusable JSON: {error}") from error


def _entries(path: Path, manifest: Any) -> list[dict[str, str]]:
    listed = manifest.get("calibrationFiles") if isinstance(manifest, dict) else None
    entries = [e for e in listed or [] if isinstance(e, dict) and {"hash", "name"} <= set(e)]
    if not entries:
        raise UserError(f"{path}: {_MANIFEST}", "no calibrationFiles with hash and name")
    return entries


def _serial(path: Path, name: PurePosixPath, manifest: Mapping[str, Any]) -> str | None:
    """The serial in the manifest, else the name of its folder, else that in the archive's name."""
    of_folder = name.parent.name if name.parent.name != "unitdata" else ""
    of_archive = path.stem.removeprefix("caldata-") if path.stem.startswith("caldata-") else ""
    serial = next(iter(_values_of(manifest, "serialNumber")), None) or of_folder or of_archive
    return str(serial) if serial else None


def _step(path: Path, name: str, texts: Mapping[PurePosixPath, str]) -> float | None:
    stem = PurePosixPath(name.replace("\\", "/")).stem
    for text in texts:
        if text.suffix.lower() == ".txt" and text.stem == stem:
            return step_of(_json(path, text, texts[text]))
    return None


def _values_of(node: Any, key: str) -> Iterator[Any]:
    """Values of a key anywhere in nested JSON."""
    if isinstance(node, Mapping):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from _values_of(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _values_of(value, key)
