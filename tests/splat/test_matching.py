"""Matches of descriptors by torch, against COLMAP's brute-force matcher."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
import walls
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes.captures import colmap_mapping
from stages.scenes.captures.calibration import calibrate_capture
from stages.scenes.captures.colmap_mapping import LADDER
from stages.scenes.captures.config import CaptureCalibrateConfig
from stages.scenes.colmap_matching import ReadDescriptors, match_all_pairs, match_pairs
from stages.scenes.dataset import Dataset
from stages.scenes.frames import fit_sim3_from_cameras
from stages.splat import matching

RATIO = 0.85


def match_on_cpu(
    read: ReadDescriptors, pairs: Sequence[tuple[int, int]], max_ratio: float
) -> Iterator[NDArray[np.uint32]]:
    return matching.match(read, pairs, max_ratio, "cpu")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the features of five images of walls, and no matches."""
    folder = tmp_path_factory.mktemp("walls")
    walls.write_photographs(folder / "images", walls.cameras())
    one_thread = pycolmap.FeatureExtractionOptions(num_threads=1)  # several number images anyhow
    pycolmap.extract_features(
        folder / "database.db", folder / "images", extraction_options=one_thread
    )
    return folder / "database.db"


def copied(database: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "database.db"
    path.write_bytes(database.read_bytes())
    return path


def rows_of(path: Path) -> dict[tuple[int, int], set[tuple[int, int]]]:
    with pycolmap.Database.open(path) as database:
        ids = sorted(image.image_id for image in database.read_all_images())
        return {
            pair: set(map(tuple, database.read_matches(*pair).tolist()))
            for pair in combinations(ids, 2)
        }


def test_matches_are_those_of_colmaps_exact_matcher(extracted: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        copied(extracted, folder)
    match_all_pairs(ours / "database.db", RATIO, match_on_cpu)
    options = pycolmap.FeatureMatchingOptions(skip_geometric_verification=True, use_gpu=False)
    options.sift.max_ratio = RATIO
    options.sift.cpu_brute_force_matcher = True
    pycolmap.match_exhaustive(theirs / "database.db", options)
    found, expected = rows_of(ours / "database.db"), rows_of(theirs / "database.db")
    assert sum(map(len, expected.values())) > 500
    assert found == expected


def test_verification_afterwards_is_that_of_colmaps_one_call(
    extracted: Path, tmp_path: Path
) -> None:
    inliers = []
    for kind in ("ours", "theirs"):
        path = copied(extracted, tmp_path / kind)
        attempt = LADDER[0]
        if kind == "ours":
            colmap_mapping._match(path, 5, attempt, CaptureCalibrateConfig(), match_on_cpu)
        else:
            options = pycolmap.FeatureMatchingOptions(use_gpu=False)
            options.sift.max_ratio = attempt.ratio
            options.sift.cpu_brute_force_matcher = True
            geometry = pycolmap.TwoViewGeometryOptions()
            geometry.ransac.random_seed = CaptureCalibrateConfig().seed
            pycolmap.match_exhaustive(path, options, verification_options=geometry)
        with pycolmap.Database.open(path) as database:
            pairs, geometries = database.read_two_view_geometries()
        inliers.append(
            {
                pair: geometry.inlier_matches.tolist()
                for pair, geometry in zip(pairs, geometries, strict=True)
                if len(geometry.inlier_matches)
            }
        )
    assert len(inliers[0]) == 10
    assert inliers[0] == inliers[1]


def test_captures_are_mapped_with_these_matches(tmp_path: Path) -> None:
    true = walls.cameras()
    walls.write_photographs(tmp_path / "corner", true)
    config = CaptureCalibrateConfig(method="sfm")
    metrics = calibrate_capture(tmp_path / "corner", tmp_path / "out", config, matcher=match_on_cpu)
    assert (metrics["registered"], metrics["total"]) == (5, 5)
    found = {view.name: view.camera for view in Dataset.read(tmp_path / "out").views}
    _, residual = fit_sim3_from_cameras([found[name] for name in true], list(true.values()))
    assert residual["rotation_mean_deg"] < 0.5


def descriptors(seed: int, count: int) -> NDArray[np.uint8]:
    """Random descriptors of length 512 as SIFT's, many of them near one of the first."""
    rng = np.random.default_rng(seed)
    values = np.random.default_rng(0).random((count, 128)) ** 4
    values = values + 0.05 * rng.random((count, 128))
    return np.rint(512 * values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.uint8)


def matched(a: NDArray[np.uint8], b: NDArray[np.uint8], device: str = "cpu") -> NDArray[np.uint32]:
    (rows,) = matching.match([a, b].__getitem__, [(0, 1)], RATIO, device)
    return rows


def test_batches_do_not_change_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = descriptors(1, 90), descriptors(2, 110)
    whole = matched(a, b)
    assert len(whole) > 50
    monkeypatch.setattr(matching, "_BATCH", 7 * 110)
    np.testing.assert_array_equal(matched(a, b), whole)


def test_equal_neighbours_are_not_distinct() -> None:
    a = descriptors(1, 20)
    assert matched(a, a).tolist() == [[k, k] for k in range(20)]
    assert matched(a, np.concatenate([a, a[:5]])).tolist() == [[k, k] for k in range(5, 20)]


@pytest.mark.parametrize(("count", "other", "expected"), [(0, 3, 0), (3, 0, 0), (1, 1, 1)])
def test_images_may_have_few_features(count: int, other: int, expected: int) -> None:
    rows = matched(descriptors(1, count), descriptors(1, other))
    assert rows.shape == (expected, 2)
    assert rows.dtype == np.uint32


def test_pairs_are_matched_by_name(extracted: Path, tmp_path: Path) -> None:
    path = copied(extracted, tmp_path)
    with pycolmap.Database.open(path) as database:
        by_name = {image.name: image.image_id for image in database.read_all_images()}
    first, second, third, *_ = sorted(by_name)
    match_pairs(path, [(second, first), (second, third)], RATIO, match_on_cpu)
    filled = {pair for pair, rows in rows_of(path).items() if rows}
    assert filled == {tuple(sorted((by_name[second], by_name[other]))) for other in (first, third)}


def test_without_a_gpu_colmap_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(matching, "has_driver", lambda: False)
    assert matching.matcher_of("cpu", "calibrate.matcher") is None
    assert matching.matcher_of("auto", "calibrate.matcher") is None
    with pytest.raises(UserError, match=r"calibrate\.matcher.*torch sees no GPU"):
        matching.matcher_of("cuda", "calibrate.matcher")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "1")
    with pytest.raises(UserError, match="this job was given a GPU"):
        matching.matcher_of("auto", "calibrate.matcher")


def test_a_gpu_is_taken_where_torch_sees_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "has_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert matching.matcher_of("auto", "calibrate.matcher") is matching.match_on_gpu
    assert matching.matcher_of("cpu", "calibrate.matcher") is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_finds_the_same_matches() -> None:
    matcher = matching.matcher_of("cuda", "calibrate.matcher")
    assert matcher is not None
    a, b = descriptors(1, 9000), descriptors(2, 8000)
    (rows,) = matcher([a, b].__getitem__, [(0, 1)], RATIO)
    assert len(rows) > 1000
    np.testing.assert_array_equal(rows, matched(a, b))
