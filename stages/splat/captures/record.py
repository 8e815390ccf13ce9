"""capture.json: what a capture was trained on, and its cameras in the world frame of its model.

Other views can be brought into that frame, and the images of a result are known by their content.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.run.artefacts import CAPTURE
from stages.run.errors import UserError
from stages.run.files import read_json, shaped, write_json
from stages.scenes.cameras import Array, Camera
from stages.scenes.scene import camera_to_dict, cameras_from_dict


def sample(points: Array) -> Array:
    """Some 2000 of a model's points [P, 3], as a record keeps them."""
    return points[:: max(1, len(points) // 2000)]


@dataclass(frozen=True, eq=False)
class CaptureRecord:
    """The contents of capture.json; cameras are in the world frame of the capture's model."""

    name: str
    match_string: str
    train: dict[str, Camera]
    held_out: dict[str, Camera]
    sha256: dict[str, str]  # of every image above
    images_hash: str  # one hash of all images of the dataset; empty in results of older versions
    points: Array  # [P, 3], a sample of the sparse points
    mean_color: Array  # [3]
    data_factor: int

    def write(self, folder: Path) -> None:
        """Write capture.json."""
        cameras = (
            {name: camera_to_dict(camera) for name, camera in group.items()}
            for group in (self.train, self.held_out)
        )
        record = {"name": self.name, "match_string": self.match_string}
        record |= dict(zip(("train", "held_out"), cameras, strict=True))
        record |= {"photographs": self.images_hash, "sha256": self.sha256}
        record |= {"points": self.points.tolist()}
        record |= {"mean_color": self.mean_color.tolist(), "data_factor": self.data_factor}
        write_json(folder / CAPTURE, record)

    @classmethod
    def read(cls, folder: Path) -> "CaptureRecord":
        """Read capture.json. Raises UserError when it is missing or broken."""
        path = folder / CAPTURE
        if not path.is_file():
            raise UserError(
                folder,
                f"no {CAPTURE}",
                expected="a folder that capture_train wrote",
                fix="python -m stages.capture_train DATA_DIR RESULT_DIR",
            )
        record = read_json(path)
        with shaped(path, "what capture_train writes", "train the capture again"):
            groups = [cameras_from_dict(record[kind]) for kind in ("train", "held_out")]
            points = np.array(record["points"], np.float64).reshape(-1, 3)
            color = np.array(record["mean_color"], np.float64).reshape(3)
            images_hash = record.get("photographs", "")
            texts = [record["name"], record["match_string"], images_hash]
            texts += dict(record["sha256"]).values()
            data_factor = record["data_factor"]
            names = {name for group in groups for name in group}
            if not all(isinstance(text, str) for text in texts) or names - set(record["sha256"]):
                raise ValueError("names and hashes are no texts")
            if not (np.isfinite(points).all() and np.isfinite(color).all()):
                raise ValueError("points or mean_color are not finite")
            if not groups[0] or type(data_factor) is not int or data_factor < 1:
                raise ValueError("no training views, or no data_factor")
        return cls(*texts[:2], *groups, record["sha256"], images_hash, points, color, data_factor)
