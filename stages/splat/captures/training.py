"""Gaussians of one static capture: trained on the views of a COLMAP dataset, and measured.

A result folder holds gaussians.safetensors, point_cloud.ply, cameras/sparse/0 (learnt poses),
fit.json (curve and evaluations) and capture.json: what was trained on, and where its cameras stand
in the world frame of its model, so that other views can be brought there.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.quality.evaluation import MeasuredView, Measures, Meter, evaluate, mean_color
from stages.run.artefacts import CAPTURE, FIT
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.files import (
    file_hash,
    folder_hash,
    read_json,
    set_hash,
    shaped,
    target_of,
    text_hash,
    write_json,
)
from stages.run.process.memory import require_for
from stages.scenes.cameras import Array, Camera
from stages.scenes.dataset import Dataset, shortened
from stages.scenes.frames import Sim3
from stages.scenes.image_folder import report_alpha
from stages.scenes.images import BLACK, Color, Mask, Pixels, resize, resize_mask, write_png
from stages.scenes.scene import camera_to_dict, cameras_from_dict
from stages.scenes.sources.name_filter import matching
from stages.scenes.view import View
from stages.splat.config import TrainConfig, mask_notes, notes
from stages.splat.gaussians import Gaussians
from stages.splat.raster import choose_backend
from stages.splat.render import align_camera, render
from stages.splat.training.fit import Fitted, fit
from stages.splat.training.trainer import Trainer, TrainView


@dataclass(frozen=True, eq=False)
class Split:
    """Which views are trained on, and which are only measured."""

    train: tuple[View, ...]
    held_out: tuple[View, ...]


@dataclass(frozen=True, eq=False)
class Alignment:
    """How poses are fitted to photographs before measuring; 0 steps leaves them as given."""

    steps: int
    lr: float


@dataclass(frozen=True, eq=False)
class CaptureRecord:
    """What capture.json says of a trained capture; cameras are in the world frame of its model."""

    name: str
    match_string: str
    train: dict[str, Camera]
    held_out: dict[str, Camera]
    sha256: dict[str, str]  # of every photograph above
    photographs: str  # identity of all of the dataset; empty in results of older versions
    points: Array  # [P, 3], a sample of the sparse points
    mean_color: Array  # [3]
    data_factor: int

    def write(self, folder: Path) -> None:
        """Write capture.json."""
        cameras = (
            {name: camera_to_dict(one) for name, one in group.items()}
            for group in (self.train, self.held_out)
        )
        facts = {"name": self.name, "match_string": self.match_string}
        facts |= dict(zip(("train", "held_out"), cameras, strict=True))
        facts |= {"photographs": self.photographs, "sha256": self.sha256}
        facts |= {"points": self.points.tolist()}
        facts |= {"mean_color": self.mean_color.tolist(), "data_factor": self.data_factor}
        write_json(folder / CAPTURE, facts)

    @classmethod
    def read(cls, folder: Path) -> "CaptureRecord":
        """Read capture.json. Raises UserError when there is none."""
        if not (folder / CAPTURE).is_file():
            raise UserError(
                folder, f"no {CAPTURE}", expected="a folder that capture_train wrote",
                fix="python -m stages.capture_train DATA_DIR RESULT_DIR",
            )  # fmt: skip
        facts = read_json(folder / CAPTURE)
        with shaped(folder / CAPTURE, "what capture_train writes", "train the capture again"):
            groups = [cameras_from_dict(facts[kind]) for kind in ("train", "held_out")]
            points = np.array(facts["points"], np.float64).reshape(-1, 3)
            color = np.array(facts["mean_color"], np.float64).reshape(3)
            photographs = facts.get("photographs", "")
            texts = [facts["name"], facts["match_string"], photographs]
            texts += dict(facts["sha256"]).values()
            data_factor = facts["data_factor"]
            placed = {name for group in groups for name in group}
            if not all(isinstance(text, str) for text in texts) or placed - set(facts["sha256"]):
                raise ValueError("names and hashes are no texts")
            if not (np.isfinite(points).all() and np.isfinite(color).all()):
                raise ValueError("points or mean_color are not finite")
            if not groups[0] or type(data_factor) is not int or data_factor < 1:
                raise ValueError("no training views, or no data_factor")
        return cls(*texts[:2], *groups, facts["sha256"], photographs, points, color, data_factor)


def split(views: Sequence[View], test_every: int, match_string: str) -> Split:
    """Hold out every `test_every`-th view by name (0 and 1: none), then choose by the token.

    The token chooses among the others alone, so that all variants of a capture are measured on the
    same views. Raises UserError when nothing is left to train on.
    """
    held_out = tuple(views[::test_every]) if test_every > 1 else ()
    rest = [view for view in views if view not in held_out]
    train = tuple(view for view in rest if matching(view.name, match_string))
    if not rest:
        raise UserError(
            "test_every", f"{test_every} leaves none of {len(views)} views to train on",
            expected="0 for no hold-out, or a smaller share",
        )  # fmt: skip
    if not train:
        raise UserError(
            "match_string", f"{match_string!r} matches none of {len(rest)} images",
            expected=f"a whole word in one of {shortened([view.name for view in rest])}",
        )  # fmt: skip
    return Split(train, held_out)


def capture_notes(
    dataset: Dataset, chosen: Split, config: TrainConfig, entry: str, given: Collection[str]
) -> list[str]:
    """Lines on parameters that cannot act on these views, to be told before they are trained on."""
    masks = [view.mask_path for view in chosen.train]
    return notes(config, entry, given, mask_notes(config, masks, dataset.name))


def train_capture(
    dataset: Dataset, chosen: Split, config: TrainConfig, folder: Path, *,
    match_string: str, resume_as: str, photographs: str = "",
) -> Fitted:  # fmt: skip
    """Train one set of Gaussians on a capture's views; write its results into `folder`.

    A killed run that is started again with the same inputs goes on where it was; `resume_as` names
    its state. The result says that it is of `photographs`, else of those of the dataset.
    """
    require_for(
        [(view.camera.width, view.camera.height) for view in (*chosen.train, *chosen.held_out)],
        config.data_factor, "train.data_factor", "set train.data_factor: {factor}",
    )  # fmt: skip
    photographs = photographs or set_hash(dataset.photographs)
    backend, reason = choose_backend(config.backend)
    sha256 = {view.name: view.sha256 for view in (*chosen.train, *chosen.held_out)}
    key = text_hash(*(part for item in sha256.items() for part in item), folder_hash(dataset.model))
    names = [view.name for view in chosen.train]
    if config.masks:
        views = (*chosen.train, *chosen.held_out)
        names += [file_hash(view.mask_path) if view.mask_path else "" for view in views]
    checkpoint = Checkpoint("captures", resume_as, key, *names, config.fingerprint(backend))
    paths = [view.image_path for view in (*chosen.train, *chosen.held_out)]
    report_alpha(dataset.name, paths, config.background)
    views = [train_view(view, config) for view in chosen.train]
    trainer = Trainer(views, dataset.points, dataset.colors, config, backend)
    told = f"{len(views)} views, {len(chosen.held_out)} held out, {trainer.origin}"
    print(f"{resume_as}: {told}, on {backend} ({reason})", flush=True)
    held_out = [train_view(view, config) for view in chosen.held_out]
    fitted = fit(trainer, resume_as, checkpoint, held_out, folder)
    fitted.write(folder, ply=config.save_ply)
    write_json(folder / FIT, {"curve": fitted.curve, "evaluations": fitted.evaluations})
    facts = CaptureRecord(
        dataset.name, match_string,
        {view.name: view.camera for view in chosen.train},
        {view.name: view.camera for view in chosen.held_out},
        sha256, photographs, dataset.points[:: max(1, len(dataset.points) // 2000)],
        mean_color(map(_counting, views)), config.data_factor,
    )  # fmt: skip
    facts.write(folder)
    return fitted


def measure(
    gaussians: Gaussians,
    views: Sequence[View],
    train_from_views: Sim3,
    folder: Path,
    *,
    meter: Meter,
    color: Array,  # [3]
    data_factor: int,
    alignment: Alignment,
    backend: str,
) -> tuple[list[Measures], Measures]:
    """Draw views into `folder`/given and /aligned, and measure them against their photographs.

    `train_from_views` brings their cameras into the world frame of the training capture. Returns
    the rows of the views and their means.
    """
    drawn = _drawn(gaussians, views, train_from_views, folder, data_factor, alignment, backend)
    rows, means = evaluate(drawn, meter, color, "lens")
    if means["psnr"] < means["mean_color_psnr"]:
        print(
            f"WARNING: {target_of(folder)}: PSNR {means['psnr']:.2f} dB is below that of an image "
            f"of the mean colour, {means['mean_color_psnr']:.2f} dB: the poses may be of another "
            "frame",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return [{"image": row["camera"], **row} for row in rows], means


def train_view(view: View, config: TrainConfig) -> TrainView:
    """An undistorted photograph and its camera, both shrunk by `data_factor`.

    With `masks` only the pixels count that the view's mask keeps.
    """
    camera, image, mask = _shrunk(view, config.data_factor, config.background)
    kept = view.mask() if config.masks else None
    if kept is not None:
        kept = resize_mask(kept, camera.width, camera.height)
        mask = kept if mask is None else mask & kept
    seen = None if mask is None else torch.from_numpy(mask)
    return TrainView(camera, torch.from_numpy(np.ascontiguousarray(image)), seen)


def _counting(view: TrainView) -> Pixels:
    """The pixels that count, as an image [H, W, 3] or, of a masked one, [1, N, 3]."""
    return (view.image if view.mask is None else view.image[view.mask][None]).numpy()


def shrunk_size(camera: Camera, data_factor: int) -> tuple[int, int]:
    """Width and height, px, of a photograph that is shrunk by `data_factor`."""
    width, height = (max(1, round(side / data_factor)) for side in (camera.width, camera.height))
    return width, height


def _shrunk(view: View, data_factor: int, background: Color) -> tuple[Camera, Pixels, Mask | None]:
    image, mask = view.image(background)
    width, height = shrunk_size(view.camera, data_factor)
    seen = None if mask is None else resize_mask(mask, width, height)
    return view.camera.resized(width, height), resize(image, width, height), seen


def _drawn(
    gaussians: Gaussians,
    views: Sequence[View],
    train_from_views: Sim3,
    folder: Path,
    data_factor: int,
    alignment: Alignment,
    backend: str,
) -> Iterator[MeasuredView]:
    background = gaussians.metadata.get("background", BLACK)  # what is drawn where nothing is
    for view in views:
        camera, photograph, mask = _shrunk(view, data_factor, background)
        camera = train_from_views.apply_camera(camera)
        pictures: dict[str, Any] = {"given": _picture(gaussians, camera, backend)}
        if alignment.steps:
            aligned = align_camera(
                gaussians, camera, torch.from_numpy(np.ascontiguousarray(photograph)), backend,
                steps=alignment.steps, lr=alignment.lr,
                mask=None if mask is None else torch.from_numpy(mask),
            )  # fmt: skip
            pictures["aligned"] = _picture(gaussians, aligned, backend)
        for kind, picture in pictures.items():
            file = view.name if view.name.endswith(".png") else f"{view.name}.png"
            write_png(folder / kind / file, picture)
        yield MeasuredView(
            "", view.name, photograph, view.sha256, mask=mask, valid=mask, **pictures
        )


def _picture(gaussians: Gaussians, camera: Camera, backend: str) -> Pixels:
    return render(gaussians, camera, backend).rgb.cpu().numpy()
