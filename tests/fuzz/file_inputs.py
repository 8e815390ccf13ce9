"""JSON and tables that stages hand to each other, and Gaussians."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from damage import Subject, bytes_of, header_of, sane_cameras, text_of, value_of
from small_capture import cameras, gaussians

from stages.difix.network.training_record import (
    TrainingRecord,
    read_training_record,
    write_training_record,
)
from stages.quality.blends import COLUMNS, FULL
from stages.quality.comparison import Evaluations, summary
from stages.quality.config import CompareConfig
from stages.quality.frontier import Frontiers, frontier_metrics
from stages.quality.headline import Headline
from stages.quality.keys import AVERAGED, MEASURED
from stages.quality.metrics.weights import absence
from stages.quality.paired_differences import delta_table
from stages.run import layout
from stages.run.files import write_json, write_tsv
from stages.samples.dataset import SampleFiles, read_split
from stages.samples.index import SampleIndex, SampleRecord, metrics, read_index
from stages.scenes.cameras import Camera, camera_fault
from stages.scenes.frames import Sim3
from stages.scenes.images import write_png
from stages.scenes.novel_views import read_aligned
from stages.scenes.poses.calibration import Calibration, read_calibration, write_calibration
from stages.scenes.scene import Scene, write_scene
from stages.scenes.static.pose_errors import read_true_cameras
from stages.scenes.study.overlap import Subject as Known
from stages.scenes.view import View
from stages.splat.captures.record import CaptureRecord
from stages.splat.gaussians import TENSORS, Gaussians
from stages.workspace.costs import read_costs


def subjects(folder: Path) -> list[Subject]:
    """One file of each form that is read back, JSON as values and as text."""
    found = [*_scene(folder / "scene"), *_evaluation(folder / "evaluated")]
    one, two, three = _cameras()
    covariance = dict.fromkeys(("a", "b"), np.eye(6))
    calibration = Calibration(
        "perturbed",
        Sim3.identity(),
        {"a": one, "b": two},
        {"c": three},
        pose_covariance=covariance,
    )
    points = {"000021": (np.zeros((2, 3)), np.zeros((2, 3), np.uint8))}
    write_calibration(folder / "calibration", calibration, points)
    path = folder / "calibration" / "calibration.json"
    found.append(Subject(path, _damage, partial(read_calibration, path.parent), _sane_calibration))

    facts = CaptureRecord(
        "x", "", {"a": one}, {"b": two}, {"a": "0", "b": "1"}, "f", np.zeros((2, 3)), np.zeros(3), 1
    )
    facts.write(folder)
    found.append(
        Subject(folder / "capture.json", _damage, partial(CaptureRecord.read, folder), _sane_facts)
    )
    truth = json.loads((folder / "scene" / "scene.json").read_text())["cameras"]
    write_json(folder / "truth.json", truth)
    read = partial(read_true_cameras, folder / "truth.json")
    found.append(Subject(folder / "truth.json", _damage, read, _sane_cameras))
    moves = {"000021": {"c": {"cam_from_world": three.cam_from_world.tolist()}}}
    write_json(folder / "novel_views.json", {"kinds": ["given", "aligned"], "moves": moves})
    read = partial(read_aligned, folder)
    found.append(Subject(folder / "novel_views.json", _damage, read, _sane_poses))

    image = folder / "scene" / "frames" / "000021" / "images" / "a.png"
    sample = dict.fromkeys(("image", "target_image", "ref_image"), str(image)) | {"prompt": "x"}
    write_json(folder / "dataset.json", {"train": {"s": sample}, "test": {"s": sample}})
    read = partial(read_split, folder / "dataset.json", "train")
    found.append(Subject(folder / "dataset.json", _damage, read, _sane_samples))
    write_json(folder / "pairs.json", asdict(_index()))
    read = partial(_pairs, folder)
    found.append(Subject(folder / "pairs.json", _damage, read, _sane_numbers))
    write_training_record(folder, TrainingRecord((Known("x", "pair1", ("ab",)),), ("other",)))
    found.append(
        Subject(
            folder / "taught.json", _damage, partial(read_training_record, folder), _sane_record
        )
    )
    write_json(folder / "costs.json", {"train": {"seconds": 2.5, "steps": 300}})
    read = partial(read_costs, folder / "costs.json")
    found.append(Subject(folder / "costs.json", _damage, read, _sane_costs))
    marker = {"alex": {"found": True, "from": "path", "sha256": "ab", "reason": None}}
    write_json(folder / "weights.json", marker)
    read = partial(absence, folder, "alex")
    found.append(Subject(folder / "weights.json", _damage, read, _nothing))
    return found


def trained(folder: Path) -> list[Subject]:
    """Gaussians; half of the damage is done to the header, where shapes and the frame are told."""
    path = folder / "gaussians.safetensors"
    gaussians().save(path)
    read = partial(Gaussians.load, path)
    return [Subject(path, damage, read, _sane_gaussians) for damage in (bytes_of, header_of)]


def _scene(folder: Path) -> list[Subject]:
    views = []
    for camera, role in zip(_cameras(), ("source", "source", "target"), strict=True):
        path = folder / "frames" / "000021" / "images" / f"{camera.name}.png"
        write_png(path, np.zeros((camera.height, camera.width, 3), np.float32))
        views.append(View(camera, path, timestamp="000021", role=role))
    write_scene(folder, {"name": "x", "group": "y", "source": "demo"}, views)
    read = partial(Scene.read, folder)
    files = (folder / "scene.json", folder / "split.csv")
    return [Subject(path, _damage, read, _sane_scene) for path in files]


def _evaluation(root: Path) -> list[Subject]:
    """Two methods of a scene as they were measured, read by what compares them."""
    columns = ["timestamp", "camera", *MEASURED]
    rows = [dict.fromkeys(columns, 20.0) | {"timestamp": "000021", "camera": c} for c in "cd"]
    means = dict.fromkeys(AVERAGED, 20.0) | {"views": 2, "protocol": "48x56"}
    for method in ("none", "base-post"):
        write_json(root / layout.scene_metrics("x", method), means)
        write_tsv(root / layout.view_metrics("x", method), rows, columns)
        strengths = (FULL,) if method == "none" else (0.0, 0.5, FULL)
        points = [dict.fromkeys(COLUMNS, 20.0) | {"strength": one} for one in strengths]
        write_tsv(root / layout.frontier("x", method), points, COLUMNS)
    files = (
        layout.scene_metrics("x", "none"),
        layout.view_metrics("x", "none"),
        layout.frontier("x", "base-post"),
    )
    return [Subject(root / one, _damage, partial(_compared, root), _sane_numbers) for one in files]


def _compared(root: Path) -> list[Any]:
    files = partial(layout.evaluation, root=root)
    evaluations = Evaluations.read(["x"], ["none", "base-post"], files)
    frontiers = Frontiers.read(evaluations, lambda *pair: root / layout.frontier(*pair))
    config, strengths = CompareConfig(bootstrap_draws=100), frontiers.choose_strengths(["x"])
    headline = Headline("base-post", evaluations, frontiers, ["x"], strengths)
    return [
        summary(evaluations, ["x"]),
        headline.means(),
        headline.differences(config, {}),
        frontier_metrics(frontiers, ["x"], config.confidence, {}),
        delta_table(evaluations, ["x"], config),
    ]


def _index() -> SampleIndex:
    record = SampleRecord(
        "c_000021", "c", "000021", "a", "000021", None, False, "given", 20.0, {"image": "ab"}
    )
    return SampleIndex("x", "y", "train", {"source": {"000021/a": "ab"}, "target": {}}, (record,))


def _pairs(folder: Path) -> list[Any]:
    index = read_index(folder)
    return [index.digest, metrics(index) if index.pairs else {}]


def _cameras() -> list[Camera]:
    return [replace(c, name=n) for n, c in zip("abc", cameras().values(), strict=False)]


def _damage(data: bytes, draw: Random) -> bytes:
    try:
        value = json.loads(data)
    except json.JSONDecodeError:  # a table
        value = None
    how = draw.randrange(8)
    if value is None or how == 0:
        return draw.choice([bytes_of, text_of, _cells])(data, draw)
    if how == 1:
        return draw.choice([_DEEP, b"[" * 5000, b"9" * 5000, b"\xef\xbb\xbf" + data, b"[]", b"1"])
    return json.dumps(value_of(value, draw)).encode()


_DEEP = b'{"a":' * 20_000 + b"1" + b"}" * 20_000


def _cells(data: bytes, draw: Random) -> bytes:
    """The same table with one cell replaced by an odd one, or a line of odd form."""
    lines = data.decode().split("\n")
    at = draw.randrange(len(lines))
    mark = "\t" if "\t" in lines[at] else ","
    cells = lines[at].split(mark)
    odd = ("nan", "inf", "1e999", "", "x", '"', "\0", "..", "\r", "9" * 5000, "\u2028", "\ufeff")
    cells[draw.randrange(len(cells))] = draw.choice(odd)
    lines[at] = mark.join(cells)
    return "\n".join(lines).encode()


def _sane_scene(found: Scene) -> None:
    sane_cameras(view.camera for view in found.all_views)
    assert all(view.image_path.is_file() for view in found.all_views)


def _sane_calibration(found: Calibration) -> None:
    sane_cameras([*found.sources.values(), *found.targets.values()])
    assert np.isfinite(found.est_from_true.matrix).all()
    for of in found.pose_covariance.values():
        assert of.shape == (6, 6)
        assert np.isfinite(of).all()


def _sane_facts(found: CaptureRecord) -> None:
    sane_cameras([*found.train.values(), *found.held_out.values()])
    assert np.isfinite(found.points).all()
    assert np.isfinite(found.mean_color).all()


def _sane_cameras(found: Mapping[str, Camera]) -> None:
    sane_cameras(found.values())


def _sane_poses(found: Mapping[str, Mapping[str, Any]]) -> None:
    for group in found.values():
        assert all(camera_fault(np.eye(3), pose) == "" for pose in group.values())


def _sane_samples(found: list[SampleFiles]) -> None:
    assert found
    assert all(path.is_file() for triple in found for path in triple.paths)


def _sane_record(found: TrainingRecord) -> None:
    assert all(isinstance(one.scene, str) for one in found.scenes)


def _sane_costs(found: Mapping[str, Any]) -> None:
    assert all(math.isfinite(float(one["seconds"])) for one in found.values())


def _sane_numbers(found: Any) -> None:
    """No number of a result is one that JSON does not know, and none is another type."""
    json.dumps(found, allow_nan=False)


def _sane_gaussians(found: Gaussians) -> None:
    assert all(torch.isfinite(getattr(found, name)).all() for name in TENSORS)
    assert all(len(getattr(found, name)) == len(found) for name in TENSORS)
    assert np.isfinite(found.world_from_norm.matrix).all()
    assert found.sh_degree >= 0


def _nothing(_: object) -> None:
    pass
