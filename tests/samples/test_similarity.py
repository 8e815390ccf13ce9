"""Changed copies of an image are matched, other images of the same room are not."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms import CHANGES, room_image

from stages.samples.similarity import (
    MIN_AGREEMENT,
    SIDE_PX,
    Gallery,
    Thumbnail,
    agreement,
    matches,
    thumbnail,
    thumbnails,
)
from stages.scenes.demo.config import DemoConfig


def thumbnail_of(image: Image.Image, folder: Path) -> Thumbnail:
    image.save(folder / "one.png")
    return thumbnail(folder / "one.png")


@pytest.mark.parametrize("change", CHANGES)
def test_changed_image_is_matched_among_others_of_its_room(change: str, tmp_path: Path) -> None:
    people = [thumbnail_of(room_image(1, number), tmp_path) for number in (10, 11, 12)]
    changed = thumbnail_of(CHANGES[change](room_image(1, 11)), tmp_path)
    (match,) = matches([changed], people)
    assert (match.first, match.second) == (0, 1)
    assert MIN_AGREEMENT <= match.agreement <= 1


def test_other_people_and_other_timestamps_of_a_room_do_not_match(tmp_path: Path) -> None:
    first = thumbnail_of(room_image(1, 10), tmp_path)
    people, later = (
        thumbnail_of(room_image(1, number, timestamp), tmp_path)
        for number, timestamp in ((11, 0), (10, 1))
    )
    for other in (people, later):
        assert Gallery([other]).best_match(first)[1] < 0.7
        assert Gallery([other]).best_match(first._replace(grey=first.grey[:, ::-1]))[1] < 0.7
    # The room makes them candidates; the worst blocks differ.
    assert np.corrcoef(first.grey.ravel(), people.grey.ravel())[0, 1] > 0.5


def test_few_blocks_that_differ_keep_two_images_apart(tmp_path: Path) -> None:
    """A small person who moved: four of the 256 blocks are of something else."""
    first = thumbnail_of(room_image(1, 10), tmp_path)
    grey = first.grey.copy()
    grey[84:108, 84:108] = thumbnail_of(room_image(2, 10), tmp_path).grey[84:108, 84:108]
    assert agreement(first, first._replace(grey=grey)) < 0.7


def test_images_without_content_match_nothing() -> None:
    flat = [Thumbnail(np.full((SIDE_PX, SIDE_PX), value, np.uint8), 512) for value in (0, 128)]
    assert matches(flat, flat) == []
    assert matches([], flat) == []
    assert matches(flat, []) == []


def test_agreement_is_one_for_the_same_image_and_deterministic(tmp_path: Path) -> None:
    first, second = (thumbnail_of(room_image(1, number), tmp_path) for number in (10, 11))
    assert agreement(first, first) == pytest.approx(1)
    assert agreement(first, second) == agreement(first, second)


@pytest.mark.slow
def test_small_demo_scenes_do_not_match(tmp_path: Path) -> None:
    from stages.scenes.demo.sequence import write_sequence

    names = ("hi4d_pair00_dance", "hi4d_pair15_fight")
    config = DemoConfig(scenes=names, frames=2, width_px=96, height_px=128, samples=1)
    for name in names:
        write_sequence(name, config, tmp_path / name)
    images = [sorted((tmp_path / name / "images").rglob("*.jpg")) for name in names]
    first, second = (thumbnails(paths) for paths in images)
    assert len(first) == len(second) == 16
    assert matches(first, second) == []
    assert matches(first[::2], first[1::2]) == []  # the two timestamps of each camera
    with Image.open(images[1][3]) as image:
        changed = thumbnail_of(CHANGES["all"](image.convert("RGB")), tmp_path)
    assert [match.second for match in matches([changed], second)] == [3]


ASSETS = Path(os.environ.get("SPLATFIX_TEST_ASSETS", "/nowhere")) / "data"


@pytest.mark.slow
@pytest.mark.skipif(not ASSETS.is_dir(), reason="SPLATFIX_TEST_ASSETS has no real captures")
@pytest.mark.parametrize("capture", ["banana", "sceaux_castle", "pose2sim_4cam"])
def test_real_images_do_not_match(capture: str) -> None:
    paths = sorted((ASSETS / capture / "images").rglob("*.[jJ][pP][gG]"))
    # Of a video two neighbouring frames of each camera, which are the hardest.
    paths = [path for path in paths if path.stem in ("000007", "000008")] or paths
    images = thumbnails(paths)
    assert len(images) >= 8
    for index, one in enumerate(images):
        others = images[:index] + images[index + 1 :]
        assert Gallery(others).best_match(one)[1] < MIN_AGREEMENT, paths[index]
