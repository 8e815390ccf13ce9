from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_samples import write_dataset, write_warped

from stages.run.errors import UserError
from stages.samples.dataset import TuningDataset, read_split
from stages.samples.stream import SampleStream
from stages.scenes.images import write_png


def config(**values: Any) -> SimpleNamespace:
    defaults = {"seed": 0, "batch_size": 2, "crop_px": 32, "flip": True}
    runtime = SimpleNamespace(loader_workers=values.pop("loader_workers", 0))
    defaults |= {"missing_reference": "error", "runtime": runtime}
    return SimpleNamespace(**{**defaults, **values})


def stream(path: Path, with_reference: bool = True, warped: int = 0, **values: Any) -> SampleStream:
    dataset = TuningDataset(read_split(path, "train"), 0, 16, warped=warped)
    return SampleStream(dataset, config(**values), 16, with_reference)


def test_crops_and_mirrors_are_the_same_in_a_sample(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    for sample in read_split(path, "train"):
        for copy in (sample.target, sample.reference):
            assert copy is not None
            copy.write_bytes(sample.image.read_bytes())
    for batch in islice(stream(path).batches(0, 0, 1), 8):
        assert batch.image.shape == (2, 3, 32, 32)
        assert torch.equal(batch.image, batch.target)
        assert torch.equal(batch.image, batch.reference)


def test_some_samples_are_mirrored_and_crops_move(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, train=1)
    samples = stream(path)
    assert len({samples.sample(number)[1].numpy().tobytes() for number in range(12)}) > 6
    whole = stream(path, crop_px=0, flip=True)
    variants = {whole.sample(number)[1].numpy().tobytes() for number in range(12)}
    assert len(variants) == 2


def test_crops_reach_both_ends_of_the_image(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, train=1, size=(64, 48))
    whole = stream(path, crop_px=0, flip=False).sample(0)[0]
    cut = stream(path, crop_px=48, flip=False)
    offsets = set()
    for number in range(100):
        image = cut.sample(number)[0]
        offsets |= {left for left in range(17) if torch.equal(image, whole[..., left : left + 48])}
    assert offsets == set(range(17))


def test_a_stream_from_the_middle_equals_the_rest_of_the_whole(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    whole = list(islice(stream(path).batches(0, 0, 1), 5))
    rest = list(islice(stream(path).batches(3, 0, 1), 2))
    for wanted, batch in zip(whole[3:], rest, strict=True):
        assert torch.equal(wanted.image, batch.image)


def test_processes_divide_the_samples_of_one(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    alone = [batch.target for batch in islice(stream(path).batches(0, 0, 1), 4)]
    shared = [
        next(islice(stream(path).batches(0, rank, 2), step, None)).target
        for step in (0, 1)
        for rank in (0, 1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_an_epoch_has_every_sample_once(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, train=5)
    samples = stream(path, crop_px=0, flip=False)
    targets = {samples.sample(number)[1].numpy().tobytes() for number in range(5)}
    assert len(targets) == 5


def test_every_epoch_and_seed_has_an_order_of_its_own(tmp_path: Path) -> None:
    dataset = stream(write_dataset(tmp_path, train=7)).dataset
    orders = [dataset.order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len(set(map(tuple, orders))) == 6
    assert dataset.order(1, 2) == orders[-1]


def test_loader_processes_change_nothing(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    direct = next(stream(path).batches(1, 0, 1))
    loaded = next(stream(path, loader_workers=1).batches(1, 0, 1))
    assert torch.equal(direct.image, loaded.image)


def test_a_missing_reference_is_refused_or_replaced(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, reference=False)
    with pytest.raises(UserError, match=r"missing_reference"):
        stream(path)
    image, _, reference = stream(path, missing_reference="own_render").sample(0)
    assert torch.equal(image, reference)
    assert stream(path, with_reference=False).sample(0)[2] is None


def test_a_crop_must_fit_the_images_and_the_network(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    with pytest.raises(UserError, match="a multiple of 16"):
        stream(path, crop_px=40)
    with pytest.raises(UserError, match="at most 48"):
        stream(path, crop_px=64)


def test_unequal_sizes_need_crops_or_single_samples(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, size=(48, 64))
    other = read_split(write_dataset(tmp_path / "other", size=(64, 64)), "train")
    dataset = TuningDataset([*read_split(path, "train"), *other], 0, 16)
    with pytest.raises(UserError, match="unequal sizes: 48x64, 64x64"):
        SampleStream(dataset, config(crop_px=0), 16, True)
    SampleStream(dataset, config(crop_px=0, batch_size=1), 16, True)
    SampleStream(dataset, config(crop_px=32), 16, True)


def test_warped_references_are_cropped_and_mirrored_with_the_image(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    for sample in read_split(path, "train"):
        write_png(sample.image, write_warped(sample.image, 1)[0][..., :3])
    for batch in islice(stream(path, warped=2).batches(0, 0, 1), 6):
        assert batch.reference is not None
        assert batch.reference.shape == (2, 2, 4, 32, 32)
        assert torch.equal(batch.reference[:, 0, :3], batch.image)
        assert not batch.reference[:, 1].any()
        views = batch.views()
        assert views.shape == (2, 1, 11, 32, 32)
        assert torch.equal(views[:, 0, 3:7], batch.reference[:, 0])
        assert batch.views(with_reference=False).shape == (2, 1, 3, 32, 32)


def test_samples_without_warped_references_are_refused_or_have_none(tmp_path: Path) -> None:
    path = write_dataset(tmp_path)
    write_warped(read_split(path, "train")[0].image, 1)
    with pytest.raises(UserError, match=r"(?s)3 samples without one.*pairs\.warped: 2"):
        stream(path, warped=2)
    samples = stream(path, warped=2, missing_reference="own_render")
    references = [samples.sample(number)[2] for number in range(4)]
    assert sorted(bool(one.any()) for one in references if one is not None) == [False] * 3 + [True]
    assert np.all([one is not None and one.shape == (2, 4, 32, 32) for one in references])
