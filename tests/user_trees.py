"""Folders as a user of gsplat's trainer has them: static scenes beside datasets of modalities.

<scene>/static/{wide,tele,ultrawide,stereo_left,stereo_right}.png, IMG_0597.LFR
<scene>/static/lightfield_decoded/inner_01/images/RR_CC.png
<scene>/iphone-eval/{images,sparse/0}
<scene>/<modality>/{train,test}/{images,sparse/0}
<scene>/static/shared/               of `write_shared`: as another program prepared it
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from small_capture import cameras, write_capture

from stages.scenes.cameras import Camera
from stages.scenes.colmap import write_model
from stages.scenes.demo.static_scene import write_static_scene
from stages.scenes.poses.colmap_rigs import Slot, Structure, write_rig_model
from stages.scenes.static.config import StaticDemoConfig
from stages.scenes.static.pose_errors import read_true_cameras

# Ray-traced scenes by the names that the user gives them.
SCENES = {"dog": "static_pair02_talk", "cat": "static_pair01_talk"}
MODALITIES = ("iphone", "vision-pro")
SUBSETS = {
    "monocular": "mono__",
    "iphone": "iphone__",
    "stereo": "stereo__",
    "lightfield": "lf__",
    "iphone_eval": "eval__",
}
LFR = b"\x89LFP\x0d\x0a\x1a\x0a\x00\x00\x00\x01"
_MOVES = {
    "iphone/wide.png": "wide.png",
    "iphone/tele.png": "tele.png",
    "iphone/ultrawide.png": "ultrawide.png",
    "stereo/left.png": "stereo_left.png",
    "stereo/right.png": "stereo_right.png",
}
_VALUES = StaticDemoConfig(lightfield_side=5, eval_frames=4, samples=1)


def write_user_tree(root: Path, scenes: Mapping[str, str] = SCENES) -> dict[str, dict[str, Camera]]:
    """Write scenes with their modalities; return true cameras by scene and prepared name."""
    return {
        name: write_scene(root / name, source, 0.03 * number)
        for number, (name, source) in enumerate(scenes.items())
    }


def write_scene(folder: Path, source: str, shift: float = 0.0) -> dict[str, Camera]:
    """Write one scene; `shift` moves the cameras of its modalities, so that images differ."""
    write_static_scene(source, _VALUES, folder)
    static, frames = folder / "static", folder / "iphone-eval" / "images"
    truth = read_true_cameras(static / "truth.json")
    for old, new in _MOVES.items():
        (static / old).rename(static / new)
    (static / "iphone_eval").rename(static / "frames")
    frames.parent.mkdir()
    (static / "frames").rename(frames)
    views = static / "lightfield_decoded" / "inner_01" / "images"
    views.mkdir(parents=True)
    for path in sorted((static / "lightfield" / "viewpoints_5px").iterdir()):
        if not set(path.stem.split("_")) & {"00", "04"}:
            path.rename(views / path.name)
    for name in ("monocular", "iphone", "stereo", "lightfield"):
        shutil.rmtree(static / name)
    (static / "truth.json").unlink()
    (static / "IMG_0597.LFR").write_bytes(LFR)
    _write_poses(frames.parent, {n[6:]: truth[n] for n in truth if n.startswith("eval__")})
    _write_poses(views.parent, {n[4:]: truth[n] for n in truth if (views / n[4:]).is_file()})
    for number, modality in enumerate(MODALITIES):
        at = shift + 0.01 * number
        write_capture(folder / modality / "train", cameras(shift=at))
        held_out = {Path(n).name: one for n, one in cameras(shift=at + 0.1).items()}
        write_capture(folder / modality / "test", {n: held_out[n] for n in list(held_out)[::4]})
    kept = {n.replace("stereo__", "stereo__stereo_"): camera for n, camera in truth.items()}
    return {n: replace(kept[n], name=n) for n in kept if _source(folder, n).is_file()}


def write_shared(folder: Path, truth: Mapping[str, Camera], *, subsets: bool = True) -> Path:
    """Write `static/shared` of a scene as another program does, at its true poses.

    Its model lies in sparse/ itself; with its own marker, masks, alignments and lists of names.
    """
    shared = folder / "static" / "shared"
    structure = _structure(truth)
    for name in truth:
        _copy(_source(folder, name), shared / "images" / name)
    _write_flat(shared / "sparse", truth, structure)
    for kind, prefix in SUBSETS.items():
        names = [name for name in truth if name.startswith(prefix)]
        of_kind = {name: truth[name] for name in names}
        if subsets:
            for name in names:
                _copy(_source(folder, name), shared / "subsets" / kind / "images" / name)
            sparse = shared / "subsets" / kind / "sparse"
            _write_flat(sparse, of_kind, structure.visible_in(names))
        split = shared / "splits" / f"{kind}.txt"
        split.parent.mkdir(exist_ok=True)
        split.write_text("".join(f"{name}\n" for name in names))
        if kind != "iphone_eval":
            mask = shared / "covisible" / kind / "1x" / "val" / "eval__frame_00001.png"
            _copy(_source(folder, "eval__frame_00001.png"), mask)
            transforms = ("align_transform", "base_transform", "support_transform")
            npz = shared / "alignments" / f"{kind}_to_eval.npz"
            npz.parent.mkdir(exist_ok=True)
            np.savez(npz, **{key: np.eye(4, dtype=np.float32) for key in transforms})
    (shared / "metadata").mkdir()
    (shared / "metadata" / "summary.json").write_text(json.dumps({"subsets": list(SUBSETS)}))
    marker = {"scene": folder.name, "timestamp": 1.0, "sources": {}}
    (shared / ".prep_complete").write_text(json.dumps(marker))
    return shared


def _source(folder: Path, name: str) -> Path:
    """The user's file of an image of the combined set."""
    static, (prefix, stem) = folder / "static", name.split("__", 1)
    folders = {
        "lf": static / "lightfield_decoded" / "inner_01" / "images",
        "eval": folder / "iphone-eval" / "images",
    }
    return folders.get(prefix, static) / stem


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_poses(dataset: Path, of_images: Mapping[str, Camera]) -> None:
    named = {name: replace(camera, name=name) for name, camera in of_images.items()}
    write_model(dataset / "sparse" / "0", named, np.zeros((1, 3)), np.zeros((1, 3), np.uint8))


def _write_flat(folder: Path, of_images: Mapping[str, Camera], structure: Structure) -> None:
    write_rig_model(
        folder, of_images, {name: Slot(name, name, "") for name in of_images}, structure
    )


def _structure(truth: Mapping[str, Camera]) -> Structure:
    """Points in front of the cameras, and the images that they project into."""
    random = np.random.default_rng(5)
    points = []
    for camera in truth.values():
        for depth in random.uniform(1.5, 4.0, 12):
            pixel = random.uniform(0.1, 0.9, 2) * [camera.width, camera.height]
            ray = np.linalg.solve(camera.K, [*pixel, 1.0]) * depth
            points.append(camera.world_from_cam[:3, :3] @ ray + camera.centre)
    shown = []
    for number, camera in enumerate(truth.values()):
        pixels, depths = camera.project(np.array(points))
        inside = ((pixels > 0) & (pixels < [camera.width, camera.height])).all(axis=1)
        shown += [(k, number, *pixels[k]) for k in np.flatnonzero(inside & (depths > 0.1))]
    rows = np.array(sorted(shown))
    colors = random.integers(0, 255, (len(points), 3)).astype(np.uint8)
    point, image = rows[:, :2].astype(np.int64).T
    return Structure(np.array(points), colors, tuple(truth), point, image, rows[:, 2:])
