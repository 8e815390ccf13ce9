"""Scenes and tunings as recordings of Rerun, whose viewer shows all of them over time.

Of a scene `world/splats/<method>` are Gaussians, `world/cameras/<role>/<camera>` cameras with their
images, `renders/<method>/<camera>` the novel views, over the timeline `frame`. Of a tuning there
are images and curves over `step`. The only module that imports rerun, which is optional.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from stages.run.errors import UserError
from stages.run.files import read_table, whole_file
from stages.scenes.cameras import Camera
from stages.splat.export import in_world
from stages.splat.gaussians import Gaussians
from stages.splat.training.initial import SH_C0

PACKAGE = "rerun-sdk>=0.41"  # the first with Gaussians
_HIGHER = 15  # coefficients of degrees 1 to 3
# How far in front of a camera its image is shown, as a share of its distance from the middle.
_IMAGE_DISTANCE = 0.3

# Files of images by camera, of one timestamp.
Images = Mapping[str, Path]


class Recording:
    """A recording that is written to a file while it is filled."""

    def __init__(self, path: Path, name: str, timeline: str = "frame"):
        """Open a recording over a timeline. Raises UserError without the package."""
        self._rerun, self._timeline = _rerun(), timeline
        self._stream = self._rerun.RecordingStream("splatfix", recording_id=name)
        self._stream.set_log_time_enabled(False)  # when it was written says nothing of the scene
        self._stream.save(path)

    def close(self) -> None:
        """Write what is left."""
        self._stream.flush()
        self._stream.disconnect()

    def cameras(self, cameras: Mapping[str, Mapping[str, Camera]]) -> None:
        """Cameras by role and name, at all times."""
        rerun = self._rerun
        self._log("world", rerun.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
        for role, named in cameras.items():
            for name, camera in named.items():
                pose = camera.world_from_cam
                entity = f"world/cameras/{role}/{name}"
                placed = rerun.Transform3D(mat3x3=pose[:3, :3], translation=pose[:3, 3])
                self._log(entity, placed, static=True)
                lens = rerun.Pinhole(
                    image_from_camera=camera.K,
                    resolution=[camera.width, camera.height],
                    camera_xyz=rerun.ViewCoordinates.RDF,
                    image_plane_distance=_IMAGE_DISTANCE * float(np.linalg.norm(camera.centre)),
                )
                self._log(entity, lens, static=True)

    def at(self, number: int) -> None:
        """Everything that follows, but cameras, belongs to this place on the timeline."""
        self._stream.set_time(self._timeline, sequence=number)

    def splats(self, method: str, gaussians: Gaussians) -> None:
        """The finite Gaussians of a method, in world coordinates."""
        world = in_world(gaussians)
        table = torch.cat([getattr(world, name).flatten(1) for name in _MATRICES], dim=1)
        kept = torch.isfinite(table).all(dim=1) & torch.isfinite(world.opacity_logits)
        rgb = (0.5 + SH_C0 * world.sh0[kept, 0]).clamp(0, 1)
        alpha = torch.sigmoid(world.opacity_logits[kept])[:, None]
        quats = torch.nn.functional.normalize(world.quats[kept], dim=-1)
        harmonics = torch.zeros(int(kept.sum()), _HIGHER, 3)
        harmonics[:, : world.shN.shape[1]] = world.shN[kept]
        splats = self._rerun.GaussianSplats3D(
            centers=world.means[kept].numpy(),
            scales=world.log_scales[kept].exp().numpy(),
            quaternions=quats[:, [1, 2, 3, 0]].numpy(),  # xyzw
            colors=(torch.cat([rgb, alpha], dim=1) * 255).round().to(torch.uint8).numpy(),
            sh_coefficients=harmonics.numpy() if world.sh_degree else None,
            spherical_harmonics_degree=world.sh_degree,
        )
        self._log(f"world/splats/{method}", splats)

    def photographs(self, role: str, images: Images) -> None:
        """What the cameras of a role took."""
        for name, path in images.items():
            self.image(f"world/cameras/{role}/{name}", path)

    def renders(self, method: str, images: Images) -> None:
        """Novel views of a method."""
        for name, path in images.items():
            self.image(f"renders/{method}/{name}", path)

    def image(self, entity: str, path: Path) -> None:
        """A PNG."""
        png = self._rerun.EncodedImage(contents=path.read_bytes(), media_type="image/png")
        self._log(entity, png)

    def number(self, entity: str, value: float) -> None:
        """A point of a curve."""
        self._log(entity, self._rerun.Scalars([value]))

    def _log(self, entity: str, what: object, *, static: bool = False) -> None:
        self._stream.log(entity, what, static=static)


_MATRICES = ("means", "quats", "log_scales", "sh0", "shN")


def write_recording(
    path: Path, name: str, fill: Callable[[Recording], None], timeline: str = "frame"
) -> None:
    """Write a whole recording, which `fill` fills, or none."""
    with whole_file(path) as scratch:
        recording = Recording(scratch, name, timeline)
        fill(recording)
        recording.close()


def write_tuning(path: Path, samples: Path, curves: Mapping[str, Path]) -> int:
    """Write a tuning over its steps: sheets of samples and tables of numbers; return their count.

    Args:
        path: the recording.
        samples: folder of the sheets, `step_000050.png`.
        curves: tables by name, with a column `step`.
    """
    sheets = {int(one.stem.removeprefix("step_")): one for one in samples.glob("step_*.png")}
    rows = {name: read_table(table, {"step"}) for name, table in curves.items()}

    def fill(recording: Recording) -> None:
        for step, sheet in sorted(sheets.items()):
            recording.at(step)
            recording.image("samples", sheet)
        for name, table in rows.items():
            for row in table:
                recording.at(int(row["step"]))
                for key in (key for key in row if key != "step" and row[key] is not None):
                    recording.number(f"{name}/{key}", float(row[key]))

    write_recording(path, "tuning", fill, "step")
    return len(sheets)


def check_available(where: str = "show.exports") -> None:
    """Raise UserError, for `where`, without the package that writes recordings."""
    _rerun(where)


def _rerun(where: str = "show.exports") -> object:
    try:
        import rerun

        if not hasattr(rerun, "GaussianSplats3D"):
            raise ImportError(f"version {rerun.__version__}")
    except ImportError as error:
        raise UserError(
            where,
            f"rrd needs a package that is not here ({error})",
            expected=f"the package {PACKAGE}",
            fix=f"run `uv pip install '{PACKAGE}'`",
        ) from error
    return rerun
