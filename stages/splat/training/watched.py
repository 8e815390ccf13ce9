"""What lies beside the resume state of a training, for those who watch it."""

import os
from pathlib import Path
from typing import Any

from stages.scenes.scene import camera_to_dict
from stages.splat.training.trainer import Trainer


def watched(
    trainer: Trainer, name: str, step: int, steps: int, result: Path | None = None
) -> dict[str, Any]:
    """Name, step, frame of the Gaussians and learnt cameras of a training, as JSON has them.

    `result` is the file that the finished Gaussians will be in, None where only the caller knows.
    """
    world_from_norm, cameras = trainer.learnt()
    return {
        "name": name,
        "step": step,
        "steps": steps,
        "result": "" if result is None else os.path.abspath(result),
        "world_from_norm": world_from_norm.to_dict(),
        "cameras": {camera.name: camera_to_dict(camera) for camera in cameras},
    }
