"""Any trained result as one that capture_evaluate can measure.

Ours are folders of capture_train and static_train, or one file in them; capture.json records what
they were trained on. Results of gsplat and PLYs of other programs have no record: it is made from
the dataset that they were trained on, with which their frame is found too.
"""

import logging
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from stages.quality.evaluation import mean_color
from stages.run.artefacts import CAPTURE, GAUSSIANS
from stages.run.errors import UserError
from stages.run.files import set_hash
from stages.scenes.captures.config import ForeignConfig
from stages.scenes.dataset import Dataset
from stages.scenes.frames import Sim3, normalisation
from stages.scenes.images import BLACK
from stages.scenes.sources.name_filter import matching
from stages.splat.captures.claims import CHECKPOINTS, TRAINED
from stages.splat.captures.foreign_frame import find_frame
from stages.splat.captures.record import CaptureRecord, sample
from stages.splat.captures.training import shrunk, split
from stages.splat.export import in_world
from stages.splat.gaussians import Gaussians
from stages.splat.gsplat_results import (
    GsplatConfig,
    checkpoint_files,
    read_checkpoint,
    read_config,
    with_other_ranks,
)
from stages.splat.ply import open_ply

_LOGGER = logging.getLogger(__name__)
_GSPLAT_TEST_EVERY = 8  # the default of its trainer
_EXPECTED = (
    "a folder that capture_train wrote, static_train or gsplat's trainer, or a .ply, .pt or "
    ".safetensors of Gaussians"
)


@dataclass(frozen=True, eq=False)
class TrainedResult:
    """Gaussians, what they were trained on, and where evaluations of them are written."""

    gaussians: Gaussians
    record: CaptureRecord
    folder: Path
    file: str = ""  # name of the one file that was named instead of the folder
    is_foreign: bool = False

    @property
    def steps(self) -> int:
        """Training steps; 0 where they are unknown."""
        return int(self.gaussians.metadata.get("step", 0))


def open_result(result: Path, trained_on: Dataset, foreign: ForeignConfig) -> TrainedResult:
    """Read a result of any kind, on the CPU.

    Args:
        result: its folder, or one file.
        trained_on: the dataset of a result without a record.
        foreign: what the files of such a result may not say.

    Raises UserError for anything else, and when the frame of a result without a record is none of
    the known ones.
    """
    if not result.exists():
        raise UserError(result, "no such file or folder", expected=_EXPECTED)
    recorded = _recorded_folder(result)
    if recorded is not None:
        return _of_ours(result, recorded)
    if result.is_dir():
        files = checkpoint_files(result)
        if not files:
            raise UserError(
                result,
                f"no {TRAINED}/{CAPTURE}, {CHECKPOINTS}/{CAPTURE} or ckpts/ckpt_*_rank0.pt in it",
                expected=_EXPECTED,
                fix="python -m stages.capture_train DATA_DIR RESULT_DIR",
            )
        return _of_gsplat(files, result, "", trained_on, foreign)
    folder = result.parent.parent if result.parent.name in ("ckpts", "ply") else result.parent
    if result.suffix == ".pt":
        return _of_gsplat(with_other_ranks(result), folder, result.name, trained_on, foreign)
    if result.suffix == ".ply":
        return _of_ply(result, folder, trained_on, foreign)
    raise UserError(result, f"a file {result.suffix or 'without suffix'}", expected=_EXPECTED)


def _recorded_folder(result: Path) -> Path | None:
    """The folder with the record of one of our results; None for another program's."""
    folder = result if result.is_dir() else result.parent
    folders = [folder] if not result.is_dir() else [result / TRAINED, result / CHECKPOINTS, result]
    return next((folder for folder in folders if (folder / CAPTURE).is_file()), None)


def _of_ours(result: Path, recorded: Path) -> TrainedResult:
    record = CaptureRecord.read(recorded)
    folder = recorded.parent if recorded.name in (TRAINED, CHECKPOINTS) else recorded
    if result.is_dir():
        return TrainedResult(Gaussians.load(recorded / GAUSSIANS), record, folder)
    return TrainedResult(open_file(result, recorded), record, folder, result.name)


def open_file(path: Path, recorded: Path) -> Gaussians:
    """Gaussians of one file of ours, of any step.

    Args:
        path: a .safetensors or a .ply.
        recorded: the folder with the training's record, whose final Gaussians tell a PLY's
            background and planes.
    """
    if path.suffix == ".safetensors":
        return Gaussians.load(path)
    if path.suffix != ".ply":
        raise UserError(path, f"a file {path.suffix}", expected=_EXPECTED)
    norm_from_world = _normalisation_of(CaptureRecord.read(recorded))
    gaussians, final = _in_norm(open_ply(path).gaussians, norm_from_world), recorded / GAUSSIANS
    metadata = Gaussians.load(final).metadata if final.is_file() else {}
    return replace(gaussians, metadata={**metadata, **_step_of(path)})


def _of_gsplat(
    files: list[Path], folder: Path, file: str, trained_on: Dataset, foreign: ForeignConfig
) -> TrainedResult:
    gaussians, steps = read_checkpoint(files)
    gaussians = replace(gaussians, metadata={"step": steps})
    ranks = f", {len(files)} ranks" if len(files) > 1 else ""
    kind = f"gsplat's checkpoint of step {steps}{ranks}"
    config = read_config(folder) or GsplatConfig()
    normalised = config.is_normalised is not False
    return _placed(gaussians, kind, normalised, folder, file, config, trained_on, foreign)


def _of_ply(path: Path, folder: Path, trained_on: Dataset, foreign: ForeignConfig) -> TrainedResult:
    ply, config = open_ply(path), read_config(folder)
    gaussians = replace(ply.gaussians, metadata=_step_of(path))
    # gsplat writes no normals and no comment; the original writes normals, in the world frame.
    by_gsplat = config is not None or not (ply.is_ours or "nx" in ply.fields)
    normalised = by_gsplat and (config is None or config.is_normalised is not False)
    found = config or GsplatConfig(test_every=None if by_gsplat else 0)
    if ply.is_ours:
        found = replace(found, antialiased=ply.gaussians.antialiased)
    kind = "a PLY of gsplat" if by_gsplat else "a PLY of ours" if ply.is_ours else "a PLY"
    return _placed(gaussians, kind, normalised, folder, path.name, found, trained_on, foreign)


def _placed(
    gaussians: Gaussians,
    kind: str,
    normalised: bool,
    folder: Path,
    file: str,
    config: GsplatConfig,
    trained_on: Dataset,
    foreign: ForeignConfig,
) -> TrainedResult:
    """A result without a record, in the frame of the dataset that it was trained on."""
    _check_named(folder, config, trained_on)
    test_every = config.test_every if foreign.test_every == "auto" else foreign.test_every
    test_every = _GSPLAT_TEST_EVERY if test_every is None else test_every
    record = record_of(trained_on, test_every, config.match_string, config.data_factor or 1)
    antialiased = bool(config.antialiased or gaussians.antialiased)
    if foreign.antialiased != "auto":
        antialiased = foreign.antialiased == "yes"
    frame = find_frame(gaussians, trained_on, foreign.frame, normalised)
    if frame.is_world:
        gaussians = _in_norm(gaussians, _normalisation_of(record))
    else:
        gaussians = replace(gaussians, world_from_norm=frame.norm_from_world.inverse())
    gaussians = replace(gaussians, antialiased=antialiased)
    _LOGGER.info(
        "%s: %s, %d Gaussians, SH degree %d, %s%s, in %s; trained on %d of %d images of %s%s%s",
        file or folder.name,
        kind,
        len(gaussians),
        gaussians.sh_degree,
        "antialiased" if antialiased else "not antialiased",
        f", images shrunk by {record.data_factor}" if record.data_factor > 1 else "",
        frame.how,
        len(record.train),
        len(trained_on.views),
        trained_on.name,
        f", every {test_every}th held out" if test_every > 1 else "",
        "".join(f"; {note}" for note in config.notes),
    )
    return TrainedResult(gaussians, record, folder, file, is_foreign=True)


def _check_named(folder: Path, config: GsplatConfig, trained_on: Dataset) -> None:
    """Compare a dataset with that of gsplat's cfg.yml.

    Raises UserError when the training's match_string matches none of its images.
    """
    named, word, images = Path(config.data_dir).name, config.match_string, trained_on.views
    if not any(matching(view.name, word) for view in images):
        raise UserError(
            f"{folder / 'cfg.yml'}  match_string",
            f"{word!r} matches none of the {len(images)} images of {trained_on.folder}, which was "
            "taken as the dataset that was trained on (without --trained-on it is EVAL_DIR)",
            expected="the dataset of the training",
            fix=f"--trained-on {shlex.quote(config.data_dir) if named else 'DATA_DIR'}",
        )
    if named not in ("", "..", trained_on.folder.resolve().name):
        _LOGGER.warning(
            "%s: trained on %s by its data_dir, but %s is taken as that dataset: if it is another, "
            "name the right one with --trained-on, or all measures are wrong",
            folder / "cfg.yml",
            config.data_dir,
            trained_on.folder,
        )


def record_of(
    dataset: Dataset, test_every: int, match_string: str, data_factor: int
) -> CaptureRecord:
    """The record of a training on a dataset; reads its images for their mean colour."""
    views = split(dataset.views, test_every, match_string)
    images = (shrunk(view, data_factor, BLACK) for view in views.train)
    counted = (image if valid is None else image[valid][None] for _, image, valid in images)
    return CaptureRecord(
        dataset.name,
        match_string,
        {view.name: view.camera for view in views.train},
        {view.name: view.camera for view in views.held_out},
        {view.name: view.sha256 for view in (*views.train, *views.held_out)},
        set_hash(dataset.image_hashes),
        sample(dataset.points),
        mean_color(counted),
        data_factor,
    )


def _normalisation_of(record: CaptureRecord) -> Sim3:
    return normalisation(list(record.train.values()), record.points)[0]


def _in_norm(gaussians: Gaussians, norm_from_world: Sim3) -> Gaussians:
    """Gaussians in world coordinates, as those of a training in the normalised frame.

    float32 holds them better there, and the near plane is in its units.
    """
    placed = in_world(gaussians.moved(norm_from_world))
    return replace(placed, world_from_norm=norm_from_world.inverse())


def _step_of(path: Path) -> dict[str, int]:
    """The step in a PLY's name: ours counts from 1, gsplat's from 0."""
    match = re.fullmatch(r"point_cloud_(\d+)", path.stem)
    return {"step": int(match[1]) + (path.parent.name == "ply")} if match else {}
