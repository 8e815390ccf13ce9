"""A small study that was run: scenes, pictures of every method, and all that `report` reads."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from exact_scene import SCENE, write_scene
from ruamel.yaml import YAML

from stages import compare, decide
from stages.quality.keys import AVERAGED, CROPPED, MEASURED, MEASURES
from stages.run import layout
from stages.run.files import write_json, write_tsv
from stages.run.methods import FIXERS, methods_of
from stages.scenes.images import write_png
from stages.scenes.novel_views import novel_view_path, write_info
from stages.scenes.scene import Scene

ROOT = Path(__file__).resolve().parents[1]
INTERNAL, DOWNSTREAM = "hi4d_pair02_dance", (SCENE, "hi4d_pair16_jump")
# How far a method's pictures are from the photographs, in levels.
NOISE = {"none": 0.12, "base-post": 0.15, "tuned-post": 0.08}
METHODS = tuple(NOISE)


def write_studied(
    monkeypatch: pytest.MonkeyPatch, methods: Sequence[str] = METHODS, *, lpips: bool = True
) -> None:
    """Write params, data and metrics of a finished study below the current folder."""
    write_scene()
    for name in (INTERNAL, DOWNSTREAM[1]):
        shutil.copytree(layout.scene(SCENE), layout.scene(name))
    _write_params(methods)
    for place, scene in enumerate((INTERNAL, *DOWNSTREAM)):
        for method in methods:
            _write_evaluation(scene, method, place, lpips)
        curve = [{"timestamp": "000021", "step": k, "loss": 1 / k, "gaussians": 9} for k in (1, 5)]
        write_tsv(layout.train_curves(scene), curve, list(curve[0]))
        write_json(layout.train_metrics(scene), {"train_psnr": 27.0, "gaussians": 120.0})
        write_json(layout.calibrate_metrics(scene), {"registered": 3, "rotation_error_deg": 0.1})
    if len(methods) > 1:
        _write_tuning()
    for stage in (compare, decide):
        monkeypatch.setattr(sys, "argv", [stage.__name__])
        stage.main()


def _write_params(methods: Sequence[str]) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["study"] |= {
        "scenes": [INTERNAL, *DOWNSTREAM],
        "evaluated_scenes": [INTERNAL, *DOWNSTREAM],
        "downstream_scenes": list(DOWNSTREAM),
        "internal_eval_scenes": [INTERNAL],
        "tuning_scenes": [],
        "methods": list(methods),
        "fixers": [one for one in FIXERS if methods_of(one, tuple(methods))],
        "subject": methods[-1],
        "seeds": [],
    }
    params["show"]["video"]["frames"] = 4
    yaml.dump(params, Path("params.yaml"))


def _write_evaluation(scene: str, method: str, place: int, lpips: bool) -> None:
    folder, rows = layout.novel_views(scene, method), []
    write_info(folder, {"kinds": ["given"]})
    random = np.random.default_rng([place, len(method)])
    for number, view in enumerate(Scene.read(layout.scene(scene)).views("target")):
        truth = view.pixels()
        level = NOISE[method] * (1 + 0.1 * number)
        image = np.clip(truth + level * random.standard_normal(truth.shape), 0, 1)
        write_png(novel_view_path(folder, "given", view), image.astype(np.float32))
        psnr = -10 * np.log10(np.square(image - truth).mean())
        measures = {
            "psnr": round(float(psnr), 4),
            "ssim": 1 - level,
            "lpips": level if lpips else None,
        }
        rows.append({"timestamp": view.timestamp, "camera": view.name, **measures})
    full = [dict.fromkeys(("timestamp", "camera", *MEASURED)) | row for row in rows]
    write_tsv(layout.view_metrics(scene, method), full, list(full[0]))
    means = dict.fromkeys(AVERAGED) | {"mean_color_psnr": 12.0, "views": len(rows)}
    for name in ("psnr", "ssim") + (("lpips",) if lpips else ()):
        means[name] = sum(row[name] for row in rows) / len(rows)
    means |= {"protocol": "one", "lpips_note": None if lpips else "<no network>"}
    write_json(layout.scene_metrics(scene, method), means)
    write_strengths(scene, method, means)


def write_strengths(scene: str, method: str, full: dict) -> None:
    """The table of strengths: by equal steps from one start to full strength."""
    start = dict(zip((*MEASURES, *CROPPED), (20.0, 0.8, 0.2) * 2, strict=True))
    rows = []
    for share in (1.0,) if method == "none" else (0.0, 0.5, 1.0):
        row = {"strength": 0.0 if method == "none" else share, "views": full["views"]}
        for name, of_none in start.items():
            end = full[name]
            row[name] = end if share == 1 or end is None else of_none + share * (end - of_none)
        rows.append(row)
    write_tsv(layout.frontier(scene, method), rows, list(rows[0]))


def _write_tuning() -> None:
    rows = {"identity": 20.0, "untuned": 19.0, "tuned": 21.0}
    measures = {name: {"psnr": level, "ssim": 0.6, "lpips": 0.2} for name, level in rows.items()}
    write_json(layout.tune_metrics(), measures | {"steps": 100})
    loss = [{"step": step, "loss": 0.1 / step} for step in (1, 50, 100)]
    write_tsv(layout.tune_curve("loss"), loss, list(loss[0]))
    names = ("psnr", "ssim", "lpips", "identity_psnr", "identity_ssim", "identity_lpips")
    checks = [{"step": step} | dict.fromkeys(names, 0.5) for step in (0, 100)]
    write_tsv(layout.tune_curve("validation"), checks, list(checks[0]))
    write_json(layout.manifest_metrics(), {"train": 8, "test": 4, "verdict": "abc" * 20})
    write_json(layout.pairs_metrics(INTERNAL), {"pairs": 4, "digest": "def" * 20})
