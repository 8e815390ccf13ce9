"""COLMAP models with rigs, tracks and two kinds of lens, as binary and as text."""

from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pycolmap
from damage import Subject, bytes_of, sane_cameras, text_of

from stages.scenes.colmap_lenses import PosedModel, read_posed


def subjects(folder: Path) -> list[Subject]:
    """Each file of both forms."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 2, 2
    options.num_points3D = 20
    model = pycolmap.synthesize_dataset(options)
    found = []
    for kind, write in (("bin", model.write_binary), ("txt", model.write_text)):
        (folder / kind).mkdir()
        write(str(folder / kind))
        damage = _damage if kind == "txt" else bytes_of
        read = partial(read_posed, folder / kind)
        files = sorted((folder / kind).iterdir())
        found += [Subject(path, damage, read, _sane) for path in files]
    return found


def _damage(data: bytes, draw: Random) -> bytes:
    return draw.choice([bytes_of, text_of])(data, draw)


def _sane(found: PosedModel) -> None:
    assert found.images
    sane_cameras([image.camera(image.lens) for image in found.images.values()])
    assert found.points.shape == (len(found.points), 3)
    assert np.isfinite(found.points).all()
    assert found.colors.dtype == np.uint8
    assert found.colors.shape == found.points.shape
