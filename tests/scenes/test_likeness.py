"""One photograph is found whatever was done to it, and others of the same room are not."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rooms import CHANGES, photograph

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


def seen(image: Image.Image, folder: Path) -> Thumbnail:
    image.save(folder / "one.png")
    return thumbnail(folder / "one.png")


@pytest.mark.parametrize("change", CHANGES)
def test_changed_photograph_is_found_among_others_of_its_room(change: str, tmp_path: Path) -> None:
    people = [seen(photograph(1, number), tmp_path) for number in (10, 11, 12)]
    changed = seen(CHANGES[change](photograph(1, 11)), tmp_path)
    (match,) = matches([changed], people)
    assert (match.first, match.second) == (0, 1)
    assert MIN_AGREEMENT <= match.agreement <= 1


def test_other_people_and_other_moments_of_a_room_are_told_apart(tmp_path: Path) -> None:
    first = seen(photograph(1, 10), tmp_path)
    people, moment = (
        seen(photograph(1, number, moment), tmp_path) for number, moment in ((11, 0), (10, 1))
    )
    for other in (people, moment):
        assert Gallery([other]).best_match(first)[1] < 0.7
        assert Gallery([other]).best_match(first._replace(grey=first.grey[:, ::-1]))[1] < 0.7
    # The room makes them candidates; the worst blocks tell.
    assert np.corrcoef(first.grey.ravel(), people.grey.ravel())[0, 1] > 0.5


def test_few_blocks_that_differ_tell_two_photographs_apart(tmp_path: Path) -> None:
    """A small person who moved: four of the 256 blocks are of something else."""
    first = seen(photograph(1, 10), tmp_path)
    grey = first.grey.copy()
    grey[84:108, 84:108] = seen(photograph(2, 10), tmp_path).grey[84:108, 84:108]
    assert agreement(first, first._replace(grey=grey)) < 0.7


def test_pictures_without_content_are_like_nothing() -> None:
    flat = [Thumbnail(np.full((SIDE_PX, SIDE_PX), value, np.uint8), 512) for value in (0, 128)]
    assert matches(flat, flat) == []
    assert matches([], flat) == []
    assert matches(flat, []) == []


def test_agreement_is_exact_for_one_picture_and_repeats(tmp_path: Path) -> None:
    first, second = (seen(photograph(1, number), tmp_path) for number in (10, 11))
    assert agreement(first, first) == pytest.approx(1)
    assert agreement(first, second) == agreement(first, second)


@pytest.mark.slow
def test_small_demo_scenes_are_told_apart(tmp_path: Path) -> None:
    from stages.scenes.demo.sequence import write_sequence

    names = ("hi4d_pair00_dance", "hi4d_pair15_fight")
    config = DemoConfig(scenes=names, frames=2, width_px=96, height_px=128, samples=1)
    for name in names:
        write_sequence(name, config, tmp_path / name)
    found = [sorted((tmp_path / name / "images").rglob("*.jpg")) for name in names]
    first, second = (thumbnails(paths) for paths in found)
    assert len(first) == len(second) == 16
    assert matches(first, second) == []
    assert matches(first[::2], first[1::2]) == []  # the two moments of each camera
    with Image.open(found[1][3]) as image:
        changed = seen(CHANGES["all"](image.convert("RGB")), tmp_path)
    assert [match.second for match in matches([changed], second)] == [3]


ASSETS = Path(os.environ.get("SPLATFIX_TEST_ASSETS", "/nowhere")) / "data"


@pytest.mark.slow
@pytest.mark.skipif(not ASSETS.is_dir(), reason="SPLATFIX_TEST_ASSETS has no real captures")
@pytest.mark.parametrize("capture", ["banana", "sceaux_castle", "pose2sim_4cam"])
def test_real_photographs_are_told_apart(capture: str) -> None:
    paths = sorted((ASSETS / capture / "images").rglob("*.[jJ][pP][gG]"))
    # Of a film two neighbouring frames of each camera, which are the hardest.
    paths = [path for path in paths if path.stem in ("000007", "000008")] or paths
    found = thumbnails(paths)
    assert len(found) >= 8
    for place, one in enumerate(found):
        others = found[:place] + found[place + 1 :]
        assert Gallery(others).best_match(one)[1] < MIN_AGREEMENT, paths[place]
