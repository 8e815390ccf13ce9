"""Stages `pairs` and `manifest` one after the other, on scenes of real Gaussians and pictures."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_samples import PATHS

from stages.manifest import main as manifest
from stages.pairs import main as pairs
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import folder_hash, read_json
from stages.samples.manifest import check_dataset
from stages.scenes.cameras import Camera, look_at, rotation_from_vector
from stages.scenes.frames import Sim3
from stages.scenes.images import read_image, write_png
from stages.scenes.poses.calibration import transfer_targets, write_calibration
from stages.scenes.scene import write_scene
from stages.scenes.study.config import StudyConfig
from stages.scenes.view import View
from stages.splat.gaussians import Gaussians
from stages.splat.render import render

TUNING, TEST, RESERVED = "hi4d_pair00_dance", "hi4d_pair02_dance", "hi4d_pair15_fight"
TIMES = ("000021", "000033")
SIZE = 40  # px
EST_FROM_TRUE = Sim3(2.0, rotation_from_vector([0.2, 0.5, -0.1]), np.array([1.0, -2.0, 0.5]))


def camera(name: str, angle: float) -> Camera:
    K = np.array([[1.2 * SIZE, 0, SIZE / 2], [0, 1.2 * SIZE, SIZE / 2], [0, 0, 1]])
    eye = [4 * np.sin(angle), -0.8, -4 * np.cos(angle)]
    return Camera(name, K, look_at(eye, [0, 0, 0], [0, -1, 0]), SIZE, SIZE)


SOURCES = {name: camera(name, angle) for name, angle in (("4", -0.6), ("16", 0.0), ("40", 0.6))}
TARGETS = {name: camera(name, angle) for name, angle in (("28", -0.4), ("64", 0.4))}


def gaussians(seed: int) -> Gaussians:
    """Blobs in the true frame, known to the estimated one through `world_from_norm`."""
    random = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=0.6 * torch.randn(120, 3, generator=random),
        quats=torch.randn(120, 4, generator=random),
        log_scales=torch.full((120, 3), -2.0),
        opacity_logits=torch.full((120,), 2.0),
        sh0=torch.randn(120, 1, 3, generator=random),
        shN=torch.zeros(120, 0, 3),
        world_from_norm=EST_FROM_TRUE,
        antialiased=False,
    )


def make_scene(scene: str) -> None:
    """Photographs are exact renders, so that a pair's input lies on its target."""
    folder, views = layout.scene(scene), []
    for time in TIMES:
        truth = gaussians(int(scene[9:11] + time))
        truth.save(layout.splats(scene) / time / "gaussians.safetensors")
        for role, group in (("source", SOURCES), ("target", TARGETS)):
            for name, one in group.items():
                path = folder / "frames" / time / "images" / f"{name}.png"
                write_png(path, render(truth, EST_FROM_TRUE.apply_camera(one), "cpu").rgb.numpy())
                views.append(View(one, path, timestamp=time, role=role))
    write_scene(folder, {"name": scene, "group": scene[5:11]}, views)
    estimated = {name: EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    calibration, _ = transfer_targets("given", estimated, SOURCES, TARGETS)
    write_calibration(layout.calibrated(scene), calibration, {})


def write_params(reference: dict[str, Any] | None = None, **study: Any) -> StudyConfig:
    entry = {"source": "demo", "source_cameras": [*SOURCES], "target_cameras": [*TARGETS]}
    memo = ("version", "objective", "hypothesis", "subject")
    roles = {"tuning_scenes": TUNING, "internal_eval_scenes": TEST}
    roles |= {"downstream_scenes": RESERVED, "reserved_scenes": RESERVED}
    lists = {key: [] for key in StudyConfig.model_fields if key not in memo}
    lists["strengths"] = [0.0, 1.0]
    full = lists | dict.fromkeys(memo, "x") | {key: [name] for key, name in roles.items()} | study
    params = {
        "study": full,
        "scenes": dict.fromkeys((TUNING, TEST, RESERVED), entry),
        "pairs": {"backend": "cpu", "reference": reference or {}},
        "manifest": {},
        "train": {},
    }
    Path("params.yaml").write_text(json.dumps(params))
    return StudyConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in full.items()})


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    for scene in (TUNING, TEST, RESERVED):
        make_scene(scene)
    write_params()
    return monkeypatch


def make(monkeypatch: pytest.MonkeyPatch, scene: str, split: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pairs", "--scene", scene, "--split", split])
    pairs()
    monkeypatch.setattr(sys, "argv", ["manifest"])


def test_pairs_become_a_data_set_without_leaks(
    workspace: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(workspace, TUNING, "train")
    make(workspace, TEST, "test")
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith(f"{TUNING}: 4 train samples, input ")
    assert output[1].startswith(f"{TEST}: 4 test samples, input ")
    numbers = read_json(layout.pairs_metrics(TUNING))
    assert numbers["pairs"] == 4
    assert numbers["psnr_min"] > 50, "inputs are drawn in the estimated frame"
    manifest()
    dataset = read_json(layout.dataset())
    assert {split: len(entries) for split, entries in dataset.items()} == {"train": 4, "test": 4}
    for entry in dataset["train"].values():
        image, target, reference = (
            read_image(Path(entry[kind])) for kind in ("image", "target_image", "ref_image")
        )
        assert image.shape == target.shape == reference.shape == (SIZE, SIZE, 3)
        assert np.abs(image - target).max() < 0.01 < np.abs(reference - target).max()
    verdict = check_dataset(layout.dataset(), write_params(), PATHS)
    assert verdict.errors == ()
    assert verdict.hash == read_json(layout.manifest_metrics())["verdict"]


def test_pairs_are_repeated_to_the_byte(workspace: pytest.MonkeyPatch) -> None:
    make(workspace, TUNING, "train")
    first = folder_hash(layout.pairs(TUNING)), layout.pairs_metrics(TUNING).read_bytes()
    make(workspace, TUNING, "train")
    assert first == (folder_hash(layout.pairs(TUNING)), layout.pairs_metrics(TUNING).read_bytes())


def test_another_strategy_changes_what_the_manifest_depends_on(
    workspace: pytest.MonkeyPatch,
) -> None:
    make(workspace, TUNING, "train")
    first = read_json(layout.pairs_metrics(TUNING))
    write_params({"strategy": "temporal"})
    make(workspace, TUNING, "train")
    second = read_json(layout.pairs_metrics(TUNING))
    assert first["psnr"] == second["psnr"]
    assert first["digest"] != second["digest"]


def test_failure_leaves_the_older_pairs(workspace: pytest.MonkeyPatch) -> None:
    make(workspace, TUNING, "train")
    first = folder_hash(layout.pairs(TUNING))
    write_params({"strategy": "temporal", "offset_frames": 9})
    with pytest.raises(UserError, match="no target with a reference"):
        make(workspace, TUNING, "train")
    assert folder_hash(layout.pairs(TUNING)) == first


def test_tuning_photographs_among_the_measured_ones_are_found(
    workspace: pytest.MonkeyPatch,
) -> None:
    copied = layout.scene(RESERVED) / "frames" / TIMES[0] / "images" / "64.png"
    copied.write_bytes((layout.scene(TUNING) / "frames" / TIMES[1] / "images/4.png").read_bytes())
    make(workspace, TUNING, "train")
    make(workspace, TEST, "test")
    with pytest.raises(UserError, match="the same image as"):
        manifest()
    assert not layout.dataset().exists()
