"""A written sequence: Hi4D's layout, equal bytes for equal seeds, masks of the people drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.run.errors import UserError
from stages.run.files import folder_hash
from stages.scenes.cameras import Camera, rigid
from stages.scenes.demo import sequence
from stages.scenes.demo.config import DemoConfig
from stages.scenes.demo.ring import NAMES
from stages.scenes.demo.sequence import parse, write_sequence
from stages.scenes.sources import hi4d

CONFIG = DemoConfig(frames=1, first_frame=30, width_px=48, height_px=64, samples=1)


@pytest.fixture(scope="module")
def fight(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "hi4d_pair15_fight"
    write_sequence("hi4d_pair15_fight", CONFIG, folder)
    return folder


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.slow
def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(fight, tmp_path):
    write_sequence("hi4d_pair15_fight", CONFIG, tmp_path / "again")
    assert folder_hash(tmp_path / "again") == folder_hash(fight)
    write_sequence("hi4d_pair15_fight", CONFIG.model_copy(update={"seed": 1}), tmp_path / "other")
    assert folder_hash(tmp_path / "other") != folder_hash(fight)


@pytest.mark.parametrize("cores", [1, 3])
def test_any_number_of_cores_gives_equal_bytes(fight, tmp_path, monkeypatch, cores):
    monkeypatch.setattr(sequence, "available_cores", lambda: cores)
    write_sequence("hi4d_pair15_fight", CONFIG, tmp_path / "again")
    assert folder_hash(tmp_path / "again") == folder_hash(fight)


def test_layout_is_hi4ds(fight):
    with np.load(fight / "cameras" / "rgb_cameras.npz") as cameras:
        assert cameras["ids"].tolist() == [4, 16, 28, 40, 52, 64, 76, 88]
        shapes = {key: cameras[key].shape for key in cameras}
    assert shapes == {
        "ids": (8,),
        "intrinsics": (8, 3, 3),
        "extrinsics": (8, 3, 4),
        "dist_coeffs": (8, 5),
    }
    with np.load(fight / "meta.npz") as meta:
        assert (int(meta["start"]), int(meta["end"]), int(meta["num_persons"])) == (30, 30, 2)
        assert meta["genders"].shape == (2,)
        assert str(int(meta["mono_cam"])) in NAMES
    for name in NAMES:
        assert read(fight / "images" / name / "000030.jpg").shape == (64, 48, 3)
        for kind in ("0", "1", "all"):
            mask = read(fight / "seg/img_seg_mask" / name / kind / "000030.png")
            assert mask.shape == (64, 48)
            assert set(np.unique(mask)) <= {0, 255}


def test_the_importer_reads_it(fight):
    sequence = hi4d.open_sequence(fight, NAMES)
    assert sequence.common_frames(NAMES) == [30]
    assert sequence.mask("40", 30, (64, 48)).any()


def test_masks_are_disjoint_and_join_to_all(fight):
    for name in NAMES:
        folder = fight / "seg/img_seg_mask" / name
        one, two, both = (read(folder / kind / "000030.png") > 0 for kind in ("0", "1", "all"))
        assert not (one & two).any()
        np.testing.assert_array_equal(one | two, both)
        assert 0.05 < both.mean() < 0.5


def test_extrinsics_put_the_people_in_the_middle_of_every_image(fight):
    with np.load(fight / "cameras" / "rgb_cameras.npz") as cameras:
        for number, K, extrinsics in zip(
            cameras["ids"], cameras["intrinsics"], cameras["extrinsics"], strict=True
        ):
            camera = Camera(str(number), K, rigid(extrinsics[:, :3], extrinsics[:, 3]), 48, 64)
            pixel, depth = camera.project(np.array([[0.0, 1.0, 0.0]]))
            mask = read(fight / f"seg/img_seg_mask/{number}/all/000030.png") > 0
            rows, columns = np.nonzero(mask)
            assert 2 < depth[0] < 4
            assert abs(columns.mean() - pixel[0, 0]) < 6
            assert abs(rows.mean() - pixel[0, 1]) < 10


@pytest.mark.slow
def test_another_pair_is_another_image(fight, tmp_path):
    write_sequence("hi4d_pair16_jump", CONFIG, tmp_path / "jump")
    for name in NAMES:
        path = Path("images") / name / "000030.jpg"
        apart = read(fight / path).astype(float) - read(tmp_path / "jump" / path)
        assert np.abs(apart).mean() > 15


def test_a_foreign_name_is_refused():
    with pytest.raises(UserError, match="hi4d_pair15_fight"):
        parse("pose2sim_4cam")
