"""Damaged COLMAP models: each is read, or told of."""

import random
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pycolmap
import pytest
from damage import bytes_of, outcome, text_of

from stages.scenes.colmap_lenses import read_posed

INPUTS = 200


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One model with rigs, tracks and two kinds of lens, as binary and as text."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 2, 2
    options.num_points3D = 20
    model = pycolmap.synthesize_dataset(options)
    folder = tmp_path_factory.mktemp("models")
    for kind, write in (("bin", model.write_binary), ("txt", model.write_text)):
        (folder / kind).mkdir()
        write(str(folder / kind))
    return [folder / "bin", folder / "txt"]


def test_a_damaged_model_is_read_or_told_of(models: list[Path], tmp_path: Path) -> None:
    draw, seen = random.Random(0), Counter()
    for number in range(INPUTS):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        whole = models[number % 2]
        shutil.copytree(whole, folder)
        path = folder / draw.choice(sorted(one.name for one in whole.iterdir()))
        damage = draw.choice([bytes_of, text_of]) if whole.name == "txt" else bytes_of
        path.write_bytes(damage(path.read_bytes(), draw))
        seen[outcome(partial(read_posed, folder), f"input {number}, {path.name}")] += 1
    assert min(seen["told"], seen["result"]) > INPUTS // 20, "damage of one kind alone"


def test_whole_models_are_read(models: list[Path]) -> None:
    for folder in models:
        assert len(read_posed(folder).images) == 8
