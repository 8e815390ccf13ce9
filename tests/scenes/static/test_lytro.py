"""Calibration archives: facts read from them, and refused ones."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from stages.run.errors import UserError
from stages.scenes.static.light_field.lytro import (
    LytroCalibration,
    geometry_reference,
    read_calibration_archive,
)

MANIFEST = {
    "calibrationFiles": [
        {"hash": "sha1-a", "name": "C:\\T1CALIB\\MOD_0001.GCT"},
        {"hash": "sha1-b", "name": "MOD_0002.GCT"},
    ]
}


def white_image(focal_m: float) -> dict:
    lens = {"focalLength": focal_m, "fNumber": 2.0}
    pitches = {"mla": {"lensPitch": 2e-05}, "sensor": {"pixelPitch": 1.4e-06}}
    frame = {"metadata": {"devices": {"lens": lens, **pitches}}}
    return {"master": {"picture": {"frameArray": [{"frame": frame}]}}}


def members(serial: str = "B5144402350", focals: tuple[float, ...] = (0.0095, 0.02)) -> dict:
    texts = {f"{serial}/cal_file_manifest.json": MANIFEST}
    texts |= {
        f"{serial}/MOD_000{number}.TXT": white_image(focal)
        for number, focal in enumerate(focals, start=1)
    }
    return {name: json.dumps(value) for name, value in texts.items()}


def tar(path: Path, texts: dict[str, str]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def test_serial_is_the_manifests_folder_not_the_files_name(tmp_path: Path) -> None:
    found = read_calibration_archive(tar(tmp_path / "caldata.tar", members()), "sha1-a")
    step_m = 0.0095 / 2.0 / (2e-05 / 1.4e-06)
    assert found == LytroCalibration("B5144402350", pytest.approx(step_m, abs=1e-9))


def test_reference_picks_the_white_image_of_the_same_zoom(tmp_path: Path) -> None:
    archive = tar(tmp_path / "caldata.tar", members())
    near, far = (read_calibration_archive(archive, name).step_m for name in ("sha1-a", "sha1-b"))
    assert far / near == pytest.approx(0.02 / 0.0095, rel=1e-4)
    assert read_calibration_archive(archive).step_m is None, "two zooms, and no word which"
    assert geometry_reference({"frames": [{"frame": {"geometryCorrectionRef": "x"}}]}) == "x"
    with pytest.raises(UserError, match="no calibration file with hash sha1-c"):
        read_calibration_archive(archive, "sha1-c")


def test_folder_and_manifests_own_serial(tmp_path: Path) -> None:
    for name, text in members("unitdata").items():
        (tmp_path / "cal" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cal" / name).write_text(text)
    assert read_calibration_archive(tmp_path / "cal").serial is None
    unnamed = tar(tmp_path / "caldata.tar", members("unitdata"))
    assert read_calibration_archive(unnamed).serial is None, "as users name their archive"
    named = tar(tmp_path / "caldata-B5144402350.tar", members("unitdata"))
    assert read_calibration_archive(named).serial == "B5144402350"
    told = json.dumps({**MANIFEST, "serialNumber": "A123"})
    (tmp_path / "cal" / "unitdata" / "cal_file_manifest.json").write_text(told)
    assert read_calibration_archive(tmp_path / "cal").serial == "A123"


@pytest.mark.parametrize(
    "name", ["../evil.txt", "B1/../../evil.txt", "/etc/evil.txt", "a\\..\\b.txt"]
)
def test_refuses_members_outside_the_archive_and_writes_nothing(name: str, tmp_path: Path) -> None:
    archive = tar(tmp_path / "c.tar", {**members(), name: "{}"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="is outside the archive"):
        read_calibration_archive(archive)
    assert sorted(tmp_path.rglob("*")) == before


def test_refuses_links(tmp_path: Path) -> None:
    path = tar(tmp_path / "c.tar", members())
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("B1/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UserError, match="is a link or a device"):
        read_calibration_archive(path)


def test_refuses_what_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_calibration_archive(tmp_path / "none.tar")
    (tmp_path / "x.tar").write_bytes(b"not a tar")
    with pytest.raises(UserError, match="not a whole tar archive"):
        read_calibration_archive(tmp_path / "x.tar")
    with pytest.raises(UserError, match="0 files cal_file_manifest"):
        read_calibration_archive(tar(tmp_path / "y.tar", {"a/b.txt": "{}"}))
    with pytest.raises(UserError, match="no calibrationFiles"):
        read_calibration_archive(tar(tmp_path / "z.tar", {"a/cal_file_manifest.json": "[]"}))
