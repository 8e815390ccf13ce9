"""The Gaussians and cameras of a training as of its last state, or of its result."""

import torch

from stages.run.errors import UserError
from stages.run.files import shaped
from stages.run.trainings import CAMERAS, Training
from stages.scenes.cameras import Camera
from stages.scenes.frames import Sim3, recentring
from stages.scenes.scene import cameras_from_dict
from stages.splat.gaussians import Gaussians, check_shapes
from stages.splat.training.trainer import NAMES
from stages.splat.viewing.live_scene import Cloud, as_cloud

_EXPECTED, _FIX = "the state of a training of Gaussians", "wait for its next state"


class WatchedTraining:
    """One training as it was when its progress was read."""

    def __init__(self, training: Training):
        """Raises UserError where it trains no Gaussians, or its progress is damaged."""
        self.training = training
        with shaped(training.folder, _EXPECTED, _FIX):
            cameras = cameras_from_dict(training.progress[CAMERAS])
            self.world_from_norm = Sim3.from_dict(training.progress["world_from_norm"])
            self._near = recentring([one.centre for one in cameras.values()])
        near = self._near
        self.cameras: list[Camera] = [
            camera if near is None else near.apply_camera(camera) for camera in cameras.values()
        ]

    def cloud(self) -> Cloud:
        """What the browser renders.

        Raises UserError for files that cannot be read, FileNotFoundError when they are gone.
        """
        gaussians = (
            Gaussians.load(self.training.result) if self.training.is_finished else self._of_state()
        )
        return as_cloud(gaussians if self._near is None else gaussians.moved(self._near))

    def _of_state(self) -> Gaussians:
        path = self.training.state
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise
        except Exception as error:  # torch raises various types for a broken file
            got = f"not readable ({error})"
            raise UserError(path, got, expected=_EXPECTED, fix=_FIX) from error
        with shaped(path, _EXPECTED, _FIX):
            params = state["trainer"]["params"]
            tensors = {NAMES.get(name, name): value for name, value in params.items()}
            gaussians = Gaussians(
                **tensors, world_from_norm=self.world_from_norm, antialiased=False
            )
            check_shapes({name: getattr(gaussians, name) for name in tensors})
            return gaussians
