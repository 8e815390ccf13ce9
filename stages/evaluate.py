"""Stage `evaluate`: PSNR, SSIM and LPIPS of one method's novel views of one scene."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.files import file_hash, write_json, write_tsv
from stages.run.params import Params

if TYPE_CHECKING:
    from stages.quality.evaluation import Shown
    from stages.scenes.scene import Scene


def main() -> None:
    """Write metrics/scenes/<scene>/<method>.json and metrics/views/<scene>/<method>.tsv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True, help="a prepared scene")
    parser.add_argument("--method", required=True, help="a method whose novel views are there")
    arguments = parser.parse_args()
    scene, method = arguments.scene, arguments.method

    from stages.quality.evaluation import COLUMNS, Meter, evaluate, mean_color
    from stages.scenes.novel_views import read_kinds
    from stages.scenes.scene import Scene

    config = Params.read().section("evaluate", EvaluateConfig)
    prepared = Scene.read(layout.scene(scene))
    prepared.cameras("target")  # refuses a scene without any
    pictures = layout.novel_views(scene, method)
    kinds = read_kinds(pictures)
    meter = Meter.build(config, layout.WEIGHTS)
    color = mean_color(view.image() for view in prepared.views("source"))
    shown = _shown(prepared, pictures, kinds, config.masks)
    rows, means = evaluate(shown, meter, color, config.masks)
    write_tsv(layout.view_metrics(scene, method), rows, COLUMNS)
    write_json(layout.scene_metrics(scene, method), means)
    if meter.note:
        print(f"WARNING: {scene} {method}: LPIPS is empty: {meter.note}", file=sys.stderr)
    lpips = "none" if means["lpips"] is None else f"{means['lpips']:.4f}"
    print(
        f"{scene} {method}: {means['views']} views, PSNR {means['psnr']:.2f} dB, "
        f"SSIM {means['ssim']:.4f}, LPIPS {lpips} "
        f"(an image of the mean colour: {means['mean_color_psnr']:.2f} dB)"
    )


def _shown(scene: "Scene", folder: Path, kinds: tuple[str, ...], masks: str) -> Iterator["Shown"]:
    """Every target view with its photograph and what the method shows."""
    from stages.quality.evaluation import Shown
    from stages.scenes.novel_views import read_picture

    for view in scene.views("target"):
        mask = view.mask() if masks == "people" else None
        if masks == "people" and mask is None:
            raise UserError(
                view.image_path, "no people mask beside it", expected="masks, for evaluate.masks",
                fix="set prepare.masks: true, or evaluate.masks: ignore",
            )  # fmt: skip
        pictures = {kind: read_picture(folder, kind, view) for kind in kinds}
        digest = file_hash(view.image_path)
        yield Shown(view.timestamp, view.name, view.image(), digest, mask=mask, **pictures)


if __name__ == "__main__":
    launch(main)
