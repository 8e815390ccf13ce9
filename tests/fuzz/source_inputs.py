"""Calibrations of raw sequences in the layouts of other programs."""

import json
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from damage import Subject, bytes_of, sane_cameras, text_of, value_of
from raw_layouts import SIZE, WRITERS, Original
from raw_sequences import write_raw_sequence

from stages.scenes.config import SceneEntry
from stages.scenes.sources.opening import open_raw
from stages.scenes.sources.raw_sequence import RawSequence

_CAMERAS = ("4", "16", "28")
_FILES = {
    "easyvolcap": ("intri.yml", "extri.yml", "sync.json"),
    "transforms": ("transforms.json", "transforms.json"),
    "actorshq": ("4x/calibration.csv", "4x/calibration.csv"),
    "mvhumannet": ("camera_intrinsics.json", "camera_extrinsics.json", "camera_scale.pkl"),
}


def subjects(folder: Path) -> list[Subject]:
    """Each file of each layout."""
    raw = write_raw_sequence(folder / "hi4d", (4, 16, 28), (5, 10), SIZE)
    original, found = Original.read(raw), []
    for source, names in _FILES.items():
        root = folder / source
        WRITERS[source](original, root)
        if source == "easyvolcap":
            (root / "sync.json").write_text(json.dumps(dict.fromkeys(_CAMERAS, 0.01)))
        read = partial(_read, source, root)
        found += [Subject(root / name, _damage, read, _sane) for name in names]
    return found


def _damage(data: bytes, draw: Random) -> bytes:
    how = draw.randrange(4)
    if how == 0 or not data.isascii():
        return bytes_of(data, draw)
    try:
        return json.dumps(value_of(json.loads(data), draw)).encode()
    except ValueError:  # YAML, or a table
        if how == 1:
            return text_of(data, draw)
    lines = data.decode().split("\n")
    at = draw.randrange(len(lines))
    mark = "," if "," in lines[at] else " "
    cells = lines[at].split(mark)
    odd = ("nan", ".Nan", "1e999", "", "x", "[", "}", "!!python/name:os.system", "*a", "9" * 500)
    cells[draw.randrange(len(cells))] = draw.choice(odd)
    lines[at] = mark.join(cells)
    return "\n".join(lines).encode()


def _read(source: str, root: Path) -> RawSequence:
    entry = SceneEntry(
        source=source, source_cameras=_CAMERAS[:2], target_cameras=_CAMERAS[2:], fps=60
    )
    sequence = open_raw(entry, root)
    frames = sequence.common_frames(_CAMERAS)
    sane_cameras([sequence.camera(name, frames) for name in _CAMERAS])
    return sequence


def _sane(found: RawSequence) -> None:
    assert [*found.cameras] == [*_CAMERAS]
    for name, camera in found.cameras.items():
        assert camera.distortion.shape == (5,)
        assert np.isfinite(camera.distortion).all()
        assert min(found.frames[name]) >= 0
        assert all(path.is_relative_to(found.root) for path in found.frames[name].values())
