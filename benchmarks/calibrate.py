"""Pose errors and times of calibration, beside COLMAP's own mapper on the same matches.

    python -m benchmarks.calibrate [--cases 3] [--seeds 2] [--raw FOLDER ...] [--timestamps 2]
        [--scenes FOLDER ...] [--captures FOLDER ...] [--make scene phone ring] [--images 50]
        [--methods perturbed sfm] [--matcher cpu] [--out FILE]

Without folders, synthetic features with known poses. `--raw` has sequences in Hi4D's layout, whose
calibration counts as true; `--scenes` prepared scenes; `--captures` folders of images without
poses, whose result is compared with truth.json there or else with COLMAP's. `--make` traces a
prepared scene of `--timestamps`, and captures of `--images`: a walk with a phone, a ring. Scenes
and captures have a second line, the seconds and the share of each part. Errors are means over
cameras after the best similarity: degrees, and the centre's as a share of the mean distance between
cameras. `start` is what `perturbed` begins with.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import calibrate_images, calibrate_parts
from benchmarks.calibrate_cases import CASES, Case, features_and_matches, true_cameras
from benchmarks.command_line import launch
from benchmarks.machine import processor
from stages.run.errors import UserError
from stages.run.files import write_json
from stages.run.process.cores import available_cores
from stages.scenes.cameras import Camera, mean_distance, rotation_angle_deg
from stages.scenes.captures.calibration import calibrate_capture
from stages.scenes.captures.config import CaptureCalibrateConfig
from stages.scenes.captures.held_out import pinholes
from stages.scenes.colmap_import import pycolmap
from stages.scenes.colmap_matching import Matcher
from stages.scenes.config import CalibrateConfig, PrepareConfig, SceneEntry
from stages.scenes.dataset import Dataset, find_photographs
from stages.scenes.frames import fit_sim3_from_cameras
from stages.scenes.poses import sfm
from stages.scenes.poses.scene_calibration import calibrate
from stages.scenes.scene import Scene
from stages.scenes.sources.hi4d import open_sequence
from stages.scenes.sources.importer import import_scene
from stages.splat.matching import matcher_of

Row = dict[str, Any]


def main() -> None:
    """Print the table and, with `--out`, write its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=len(CASES), help="the first of them")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--raw", type=Path, nargs="*", default=[])
    parser.add_argument("--timestamps", type=int, default=2, help="of a sequence")
    parser.add_argument("--scenes", type=Path, nargs="*", default=[])
    parser.add_argument("--captures", type=Path, nargs="*", default=[])
    parser.add_argument("--make", nargs="*", default=[], choices=["scene", "phone", "ring"])
    parser.add_argument("--images", type=int, default=50, help="of a capture that is traced")
    parser.add_argument("--scale", type=float, default=1.0, help="of the traced images' size")
    parser.add_argument("--matcher", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--methods", nargs="+", default=["given", "perturbed", "sfm"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    for row in _rows(args):
        rows.append(row)
        print(line(row), flush=True)
        if "parts" in row:
            print("    " + calibrate_parts.text(row["parts"], row["seconds"]), flush=True)
        if args.out:
            facts = {"processor": processor(), "cores": available_cores()}
            write_json(args.out, facts | {"rows": rows})


def _rows(args: argparse.Namespace) -> Iterator[Row]:
    for case in CASES[: args.cases]:
        for seed in range(args.seeds):
            yield from of_case(case, seed)
    matcher = matcher_of(args.matcher, "--matcher")
    for folder in args.raw:
        with tempfile.TemporaryDirectory() as scratch:
            prepare(folder, Path(scratch), args.timestamps)
            yield from of_scene(folder.name, Scene.read(Path(scratch)), args.methods, matcher)
    for folder in args.scenes:
        yield from of_scene(folder.name, Scene.read(folder), args.methods, matcher)
    for folder in args.captures:
        yield from of_capture(folder, matcher)
    for kind in args.make:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, kind)
            if kind == "scene":
                calibrate_images.write_scene(folder, args.timestamps, _scaled((940, 1280), args))
                yield from of_scene(kind, Scene.read(folder), args.methods, matcher)
            elif kind == "phone":
                calibrate_images.write_phone(folder, args.images, _scaled((1080, 1920), args))
                yield from of_capture(folder, matcher)
            else:
                calibrate_images.write_ring(folder, args.images, _scaled((1280, 960), args))
                yield from of_capture(folder, matcher)


def _scaled(size: tuple[int, int], args: argparse.Namespace) -> tuple[int, int]:
    return round(size[0] * args.scale), round(size[1] * args.scale)


def line(row: Row) -> str:
    """One row as text."""
    numbers = "".join(
        f"{'-' if row.get(key) is None else format(row[key], form):>{width}}"
        for key, form, width in (
            ("rotation_deg", ".3f", 9),
            ("centre_percent", ".3f", 9),
            ("registered", "d", 5),
            ("total", "d", 5),
            ("seconds", ".2f", 9),
        )
    )
    return f"{row['name'][:72]:73}{row['method']:10}{numbers}  {row.get('note', '')[:120]}"


def of_case(case: Case, seed: int) -> Iterator[Row]:
    """The start, our results and COLMAP's mapper on synthetic features."""
    cameras = true_cameras(case)
    features, matches = features_and_matches(case, cameras)
    config = CalibrateConfig(method="perturbed", seed=seed)
    noisy = sfm.perturb(cameras, config)
    name = f"{case.name}, seed {seed}"
    yield row(name, "start", noisy, cameras, 0.0)
    runs = {"perturbed": partial(sfm.refine, noisy, features, matches, config)}
    if not seed:
        runs["sfm"] = partial(sfm.reconstruct, cameras, features, matches, config)
    for method, run in runs.items():
        begin = time.perf_counter()
        with _note(name, method, cameras) as failed:
            estimate = run()
            seconds = time.perf_counter() - begin
            yield row(name, method, estimate.cameras, cameras, seconds, estimate.note)
        yield from failed
    if seed:
        return
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        found = colmap_mapper(cameras, features, matches, Path(scratch))
        yield row(name, "COLMAP", found, cameras, time.perf_counter() - begin)


def of_scene(
    name: str, scene: Scene, methods: Sequence[str], matcher: Matcher | None = None
) -> Iterator[Row]:
    """The stage's work on a prepared scene by each method, with its metrics."""
    true = scene.cameras("source")
    distance = mean_distance(list(true.values()))
    name = f"{name}, {len(true)} cameras, {len(scene.timestamps)} timestamps"
    for method in methods:
        for seed in (0, 1) if method == "perturbed" else (0,):
            config = CalibrateConfig(method=method, seed=seed)
            if method == "perturbed":
                yield row(f"{name}, seed {seed}", "start", sfm.perturb(true, config), true, 0.0)
            begin = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder, _note(name, method, true) as failed:
                with calibrate_parts.measured() as parts:
                    metrics = calibrate(scene, config, Path(folder), matcher=matcher)
                yield {
                    "name": f"{name}, seed {seed}",
                    "method": method,
                    "rotation_deg": metrics["rotation_error_deg"],
                    "centre_percent": 100 * metrics["centre_error_m"] / distance,
                    "registered": metrics["registered"],
                    "total": metrics["total"],
                    "seconds": time.perf_counter() - begin,
                    "note": metrics["note"],
                    "points": metrics["points"],
                    "parts": parts.seconds,
                }
            yield from failed


def of_capture(folder: Path, matcher: Matcher | None = None) -> Iterator[Row]:
    """A capture by structure from motion, and by pycolmap's calls with their defaults."""
    total = len(find_photographs(folder))
    name, true = folder.name, calibrate_images.true_cameras(folder)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch, parts = Path(scratch_name), calibrate_parts.Parts()
        begin = time.perf_counter()
        reference = colmap_pipeline(folder, scratch, parts)
        seconds = time.perf_counter() - begin
        facts = {"registered": len(reference), "total": total}
        start = row(name, "COLMAP", reference, true, seconds) if true else {"seconds": seconds}
        yield {"name": name, "method": "COLMAP", **start, **facts, "parts": parts.seconds}
        begin = time.perf_counter()
        with _note(name, "sfm", dict.fromkeys(map(str, range(total)))) as failed:
            with calibrate_parts.measured() as parts:
                config = CaptureCalibrateConfig(method="sfm")
                metrics = calibrate_capture(folder, scratch / "out", config)
            seconds = time.perf_counter() - begin
            views = {view.name: view.camera for view in Dataset.read(scratch / "out").views}
            yield row(name, "sfm", views, true or reference, seconds, metrics["note"]) | {
                "registered": len(views),
                "total": total,
                "parts": parts.seconds,
            }
        yield from failed


def prepare(raw: Path, folder: Path, timestamps: int) -> None:
    """A raw sequence as a prepared scene, all of whose cameras are sources."""
    cameras = np.load(raw / "cameras" / "rgb_cameras.npz")["ids"].tolist()
    names = [str(number) for number in cameras]
    open_sequence(raw, names)
    # A scene has at least one target; it is listed twice, so that all are calibrated.
    entry = SceneEntry(
        source="hi4d",
        source_cameras=tuple(names[:-1]),
        target_cameras=(names[-1],),
        timestamps=timestamps,
    )
    import_scene(raw.name, entry, PrepareConfig(), raw, folder)
    split = folder / "split.csv"
    lines = split.read_text().splitlines()
    again = [line.replace(",target", ",source") for line in lines if line.endswith(",target")]
    split.write_text("\n".join(lines + again) + "\n")


def colmap_mapper(
    cameras: Mapping[str, Camera], features: sfm.PooledFeatures, matches: Mapping, folder: Path
) -> dict[str, Camera]:
    """COLMAP's verification and incremental mapper with its defaults; intrinsics are known."""
    path = folder / "database.db"
    ids = {name: number for number, name in enumerate(cameras, start=1)}
    with pycolmap.Database.open(path) as database:
        for name, camera in cameras.items():
            number = ids[name]
            lens = pycolmap.Camera(
                camera_id=number,
                model="SIMPLE_PINHOLE",
                width=camera.width,
                height=camera.height,
                params=[camera.K[0, 0], camera.K[0, 2], camera.K[1, 2]],
            )
            lens.has_prior_focal_length = True
            database.write_camera(lens, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=number)
            rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number))
            database.write_rig(rig, use_rig_id=True)
            image = pycolmap.Image(name=name, camera_id=number, image_id=number)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=number, rig_id=number)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(number, features.of[name].keypoints.astype(np.float32))
        for (a, b), pairs in matches.items():
            database.write_matches(ids[a], ids[b], pairs)
    two_views = pycolmap.TwoViewGeometryOptions()
    two_views.ransac.random_seed = 0
    with quiet():
        verifier = pycolmap.GeometricVerifierOptions(num_threads=1)
        pycolmap.geometric_verification(path, verifier, two_view_geometry_options=two_views)
        options = pycolmap.IncrementalPipelineOptions(
            num_threads=1, random_seed=0, min_model_size=3, extract_colors=False
        )
        models = pycolmap.incremental_mapping(path, folder, folder, options)
    return _largest(models)


def colmap_pipeline(folder: Path, scratch: Path, parts: calibrate_parts.Parts) -> dict[str, Camera]:
    """pycolmap's calls for a folder of images, with their defaults, on one lens."""
    images = folder / "images" if (folder / "images").is_dir() else folder
    path = scratch / "reference.db"
    with quiet():
        extract = parts.timed(calibrate_parts.FEATURES, pycolmap.extract_features)
        extract(path, images, camera_mode=pycolmap.CameraMode.SINGLE)
        two_views = pycolmap.TwoViewGeometryOptions()
        two_views.ransac.random_seed = 0
        match = parts.timed("matching", pycolmap.match_exhaustive)
        match(path, verification_options=two_views)
        options = pycolmap.IncrementalPipelineOptions(random_seed=0, min_model_size=3)
        mapped = parts.timed("poses", pycolmap.incremental_mapping)
        models = mapped(path, images, scratch, options)
    return _largest(models)


def _largest(models: "Mapping[int, pycolmap.Reconstruction]") -> dict[str, Camera]:
    if not models:
        return {}
    model = max(models.values(), key=lambda one: one.num_reg_images())
    return dict(sorted(pinholes(model).items()))


def row(
    name: str,
    method: str,
    cameras: Mapping[str, Camera],
    true: Mapping[str, Camera],
    seconds: float,
    note: str = "",
) -> Row:
    """Pose errors after the best similarity; None with fewer than two cameras."""
    names = [one for one in true if one in cameras]
    facts = {"name": name, "method": method, "seconds": round(seconds, 3), "note": note}
    facts |= {"registered": len(names), "total": len(true)}
    if len(names) < 2:
        return facts
    b = [true[one] for one in names]
    true_from_found, _ = fit_sim3_from_cameras([cameras[one] for one in names], b)
    a = [true_from_found.apply_camera(cameras[one]) for one in names]
    angles = [
        rotation_angle_deg(x.cam_from_world[:3, :3], y.cam_from_world[:3, :3])
        for x, y in zip(a, b, strict=True)
    ]
    shifts = [np.linalg.norm(x.centre - y.centre) for x, y in zip(a, b, strict=True)]
    distance = mean_distance(list(true.values()))
    return facts | {
        "rotation_deg": round(float(np.mean(angles)), 5),
        "centre_percent": round(100 * float(np.mean(shifts)) / distance, 5),
    }


@contextlib.contextmanager
def _note(name: str, method: str, cameras: Mapping[str, Any]) -> Iterator[list[Row]]:
    """A refusal becomes a row of the list."""
    failed: list[Row] = []
    begin = time.perf_counter()
    try:
        yield failed
    except UserError as error:
        seconds = time.perf_counter() - begin
        text = " ".join(str(error).split())
        facts = {"name": name, "method": method, "total": len(cameras), "registered": 0}
        failed.append(facts | {"seconds": round(seconds, 3), "note": f"refused: {text}"})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without COLMAP's log, which some calls turn on."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


if __name__ == "__main__":
    launch(main)
