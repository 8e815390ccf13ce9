"""Stage `evaluate`: PSNR, SSIM and LPIPS of one method's novel views of one scene."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stages.quality.config import EvaluateConfig
from stages.run import layout
from stages.run.entry import launch
from stages.run.files import write_json, write_tsv
from stages.run.params import Params

if TYPE_CHECKING:
    from stages.scenes.scene import Scene


def main() -> None:
    """Write metrics/scenes/<scene>/<method>.json and metrics/views/<scene>/<method>.tsv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", required=True, help="a prepared scene")
    parser.add_argument("--method", required=True, help="a method whose novel views are there")
    arguments = parser.parse_args()
    scene, method = arguments.scene, arguments.method

    from stages.quality import evaluation
    from stages.quality.meter import Meter
    from stages.scenes.scene import Scene

    config = Params.read().section("evaluate", EvaluateConfig)
    prepared = Scene.read(layout.scene(scene))
    prepared.cameras("target")
    meter = Meter.build(config, layout.WEIGHTS)
