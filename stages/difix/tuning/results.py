"""Results of a tuning: the fixer's folder, its metrics and curves."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.difix.config import TuneConfig
from stages.difix.network.training_record import TUNING_FILE
from stages.difix.tuning.finetune import CURVE_COLUMNS, MetricRow, Tuner
from stages.difix.tuning.inputs import TuningData
from stages.difix.tuning.validation import MEASURES
from stages.difix.weights.card import write_card
from stages.difix.weights.folders import has_text, write_folder
from stages.run.checkpoint import Checkpoint
from stages.run.files import write_json, write_tsv
from stages.scenes.images import image_size

_OF_A_FIXER = ("", "_withheld", "_wrong")
ROWS = ("identity", *(f"{fixer}{row}" for fixer in ("untuned", "tuned") for row in _OF_A_FIXER))
VALIDATION_COLUMNS = ["step", *MEASURES, *(f"identity_{name}" for name in MEASURES)]


def write_fixer(
    tuner: Tuner,
    data: TuningData,
    base: Path,
    folder: Path,
    checkpoint: Checkpoint,
    verdict: str,
    warnings: Sequence[str] = (),
) -> None:
    """Write the tuned fixer, its card, its training record and its image sheets.

    Args:
        tuner: of the finished run.
        data: that it was tuned on.
        base: folder of the untuned fixer, whose text encoder and tokenizer are copied.
        folder: where the fixer goes.
        checkpoint: of the run, which keeps the image sheets.
        verdict: hash of the leak guard's verdict, for the card.
        warnings: for the card.
    """
    fixer = tuner.fixer
    fixer.training_record = fixer.training_record.merged(data.training_record())
    # Samples have one reference.
    fixer.spec = fixer.spec.changed(origin=f"{fixer.spec.origin}, tuned", references=1)
    write_folder(fixer, folder, base if has_text(base) else None)
    write_card(
        folder,
        fixer.spec,
        tuner.config,
        scalars(tuner, data),
        data.digest(),
        verdict,
        fixer.training_record,
        warnings,
    )
    about = {"pairs_digest": data.digest(), "verdict": verdict}
    write_json(folder / TUNING_FILE, scalars(tuner, data) | about)
    if checkpoint.kept.is_dir():
        shutil.copytree(checkpoint.kept, folder / "samples")


def scalars(tuner: Tuner, data: TuningData) -> dict[str, Any]:
    """The content of metrics/tune.json: measures by row, and counts."""
    validations = {row["row"]: row for row in tuner.validations}
    unknown = tuner.fixer.training_record.unknown
    measures = {
        name: {key: validations[name][key] for key in MEASURES}
        for name in ROWS
        if name in validations
    }
    return (
        measures
        | {
            "steps": tuner.config.steps,
            "kept_step": validations["tuned"]["step"],
            "train_pairs": len(data.train),
            "train_views": data.train_views(),
            "test_pairs": len(data.test),
            "weights_moved": float(f"{tuner.weights_moved:.4g}"),
            "parameters": tuner.fixer.parameter_count(),
            "worked_on": tuned_words(tuner.config, *image_size(data.train[0].image)),
            "losses": tuner.loss.effective(tuner.config.steps),
        }
        | ({"losses_note": differs} if (differs := tuner.loss.differs) else {})
        | ({"data": words} if (words := data.words()) else {})
        | ({"taught_unknown": "; ".join(unknown)} if unknown else {})
    )


def write_curves(tuner: Tuner, loss: Path, validation: Path) -> None:
    """Write the curves of the loss and of the measures on the internal-eval samples."""
    write_tsv(loss, tuner.curve, CURVE_COLUMNS)
    write_tsv(validation, _validation_curve(tuner.validations), VALIDATION_COLUMNS)


def _validation_curve(validations: Sequence[MetricRow]) -> list[MetricRow]:
    """The fixer's rows by step, untuned first, each with the measures of the render."""
    identity = next(row for row in validations if row["row"] == "identity")
    of_render = {f"identity_{name}": identity[name] for name in MEASURES}
    steps = {
        row["step"]: {"step": row["step"], **{name: row[name] for name in MEASURES}, **of_render}
        for row in validations
        if row["row"] in ("untuned", "fixed", "tuned")
    }
    return [steps[step] for step in sorted(steps)]


def tuned_words(config: TuneConfig, width: int, height: int) -> str:
    """The size at which a fixer was tuned on samples of width x height px.

    >>> tuned_words(TuneConfig(resolution=0), 192, 256)
    'whole images of 192x256 px'
    >>> tuned_words(TuneConfig(resolution=320, crop_px=256), 940, 1280)
    'random squares of 256 px of images of 940x1280 px, shorter side 320 px'
    """
    size = f"images of {width}x{height} px"
    size += f", shorter side {config.resolution} px" if config.resolution else ""
    return f"random squares of {config.crop_px} px of {size}" if config.crop_px else f"whole {size}"
