import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_samples import write_dataset, write_warped

from stages.run.errors import UserError
from stages.samples.dataset import TuningDataset, common_prompt, read_split
from stages.scenes.images import read_image


def edit(path: Path, **change: object) -> None:
    """Change keys of the first training sample; None removes one."""
    content = json.loads(path.read_text())
    entry = content["train"]["train0"]
    entry.update(change)
    content["train"]["train0"] = {key: one for key, one in entry.items() if one is not None}
    path.write_text(json.dumps(content))


def test_sides_are_snapped_to_multiples_of_16_and_reported(tmp_path: Path) -> None:
    samples = read_split(write_dataset(tmp_path, size=(50, 70)), "train")
    dataset = TuningDataset(samples, resolution=0, multiple=16)
    image, target, reference = dataset.load(0)
    assert image.shape == target.shape == (3, 64, 48)
    assert reference is not None
    assert reference.shape == (3, 64, 48)
    assert list(dataset.size_notes()) == [
        "50x70 px images are processed at 48x64 (resolution 0, multiples of 16)"
    ]


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_splits_follow_the_resolution_and_keep_the_aspect(tmp_path: Path, split: str) -> None:
    samples = read_split(write_dataset(tmp_path, size=(60, 80)), split)
    assert TuningDataset(samples, resolution=96, multiple=16).load(0)[0].shape == (3, 128, 96)
    assert TuningDataset(samples, resolution=32, multiple=16).load(0)[1].shape == (3, 48, 32)


def test_the_order_is_a_permutation_by_seed_and_epoch(tmp_path: Path) -> None:
    dataset = TuningDataset(read_split(write_dataset(tmp_path, train=12), "train"), 0, 16)
    first = dataset.order(0, 0)
    assert sorted(first) == list(range(12))
    assert first == dataset.order(0, 0)
    assert first != dataset.order(1, 0)
    assert first != dataset.order(0, 1)


def test_pixels_are_the_files_own(tmp_path: Path) -> None:
    samples = read_split(write_dataset(tmp_path), "train")
    for cache_mib in (0, 1):
        dataset = TuningDataset(samples, 0, 16, cache_mib)
        for _ in range(2):
            wanted = torch.from_numpy(read_image(samples[1].target)).permute(2, 0, 1)
            torch.testing.assert_close(dataset.load(1)[1], wanted, rtol=0, atol=1e-6)


def test_the_cache_holds_no_more_than_its_size(tmp_path: Path) -> None:
    samples = read_split(write_dataset(tmp_path, size=(512, 512), train=3), "train")
    dataset = TuningDataset(samples, 0, 16, cache_mib=2)
    for index in range(3):
        dataset.load(index)
    assert sum(one.numel() for one in dataset._cache.values()) == 2 * 3 * 512 * 512


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_images_of_any_mode_become_three_channels(tmp_path: Path, mode: str) -> None:
    path = write_dataset(tmp_path)
    sample = read_split(path, "train")[0]
    Image.open(sample.image).convert(mode).save(sample.image)
    assert TuningDataset(read_split(path, "train"), 0, 16).load(0)[0].shape == (3, 64, 48)


def test_every_missing_image_is_named_at_once(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    samples = read_split(path, "train")
    samples[0].target.unlink()
    samples[2].image.unlink()
    with pytest.raises(UserError) as raised:
        read_split(path, "train")
    message = str(raised.value)
    assert "train0.target_image" in message
    assert "train2.image" in message
    assert str(samples[0].target) in message


def test_unequal_sizes_in_a_sample_are_refused(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    sample = read_split(path, "train")[0]
    Image.fromarray(np.zeros((64, 32, 3), np.uint8)).save(sample.reference)
    with pytest.raises(UserError, match=r"train0.*ref_image 32x64"):
        read_split(path, "train")


@pytest.mark.parametrize("content", [{}, {"train": {}}, {"train": []}])
def test_an_empty_split_is_refused(tmp_path: Path, content: dict) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="no samples in `train`"):
        read_split(path, "train")


@pytest.mark.parametrize("change", [{"target": "a.png"}, {"target_image": None}])
def test_unknown_and_missing_keys_are_refused(tmp_path: Path, change: dict) -> None:
    path = write_dataset(tmp_path)
    edit(path, **change)
    with pytest.raises(UserError, match=r"train\.train0"):
        read_split(path, "train")


def test_a_sample_may_have_no_reference(tmp_path: Path) -> None:
    samples = read_split(write_dataset(tmp_path, reference=False), "train")
    assert samples[0].reference is None
    assert len(samples[0].paths) == 2
    assert TuningDataset(samples, 0, 16).load(0)[2] is None


def test_two_prompts_are_refused(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    assert common_prompt(read_split(path, "train"), path) == "remove degradation"
    edit(path, prompt="something else")
    with pytest.raises(UserError, match="2 prompts"):
        common_prompt(read_split(path, "train"), path)


@pytest.mark.parametrize("key", ["image", "target_image", "ref_image"])
@pytest.mark.parametrize("value", [["a.png"], 3, True])
def test_a_path_that_is_no_text_is_refused(tmp_path: Path, key: str, value: object) -> None:
    path = write_dataset(tmp_path)
    edit(path, **{key: value})
    with pytest.raises(UserError, match=rf"train\.train0\.{key}: "):
        read_split(path, "train")


def test_an_empty_image_is_refused(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    edit(path, image="")
    with pytest.raises(UserError, match=r"train0\.image: None\nexpected the path of an image"):
        read_split(path, "train")


def test_warped_references_lie_beside_the_samples(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    first, second, third, _ = read_split(path, "train")
    three, one = write_warped(first.image, 3), write_warped(second.image, 1)
    samples = read_split(path, "train")
    assert [len(sample.warped) for sample in samples] == [3, 1, 0, 0]
    assert set(samples[0].paths) - set(first.paths) == set(samples[0].warped)
    dataset = TuningDataset(samples, 0, 16, warped=2)
    wanted = torch.from_numpy(np.stack(three[:2])).permute(0, 3, 1, 2)
    torch.testing.assert_close(dataset.load(0)[2], wanted, rtol=0, atol=1e-6)
    wanted = torch.from_numpy(one[0]).permute(2, 0, 1)
    reference = dataset.load(1)[2]
    assert reference is not None
    torch.testing.assert_close(reference[0], wanted, rtol=0, atol=1e-6)
    assert not reference[1].any()
    assert dataset.load(2)[2] is None
    assert [dataset.has_reference(index) for index in range(3)] == [True, True, False]
    assert third.reference is not None


def test_warped_files_change_nothing_for_a_fixer_that_takes_images(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    before = TuningDataset(read_split(path, "train"), 0, 16).load(0)
    write_warped(read_split(path, "train")[0].image, 2)
    after = TuningDataset(read_split(path, "train"), 0, 16).load(0)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_warped_image_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    write_warped(read_split(path, "train")[0].image, 1)
    Image.new("RGBA", (16, 16)).save(tmp_path / "warped_1" / "train0_image.png")
    with pytest.raises(UserError, match=r"(?s)train0.*warped_1 16x16.*one size"):
        read_split(path, "train")
