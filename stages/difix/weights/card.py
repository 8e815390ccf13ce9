"""The model card of a fixer: where it comes from, what it was taught, how well it does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.difix.config import TuneConfig
from stages.difix.network.spec import Spec
from stages.difix.network.training_record import TrainingRecord
from stages.run.files import whole_file

CARD = "README.md"
NOBODY = TrainingRecord()
_ROWS = {
    "identity": "the render as it is",
    "untuned": "the base",
    "untuned_withheld": "the base without its reference",
    "tuned": "this fixer",
    "tuned_withheld": "this fixer without its reference",
}
_LICENCES = (
    "Weights that started from stabilityai/sd-turbo are under the Stability AI Community Licence, "
    "from nvidia/difix or nvidia/difix_ref under the NVIDIA Licence as well (non-commercial). "
    "The tiny fixer was trained on procedural pictures by this repository and is under its "
    "licence. Photographs that a fixer was tuned on may bind it further: Hi4D is for research only."
)


def write_base_card(
    folder: Path, spec: Spec, parameters: int, taught: TrainingRecord = NOBODY
) -> None:
    """Write the card of an untuned fixer."""
    lines = [
        *_head("A fixer for novel views, before it was tuned", spec), "",
        "## Made from", "",
        f"- origin: {spec.origin}",
        f"- size: {spec.size}, {parameters:,} parameters",
        "- pairs: none; no scene of the study was shown to it here",
        f"- taught by: {taught.summary}", "",
        "## Licence", "", _LICENCES,
    ]  # fmt: skip
    _write(folder, lines)


def write_card(
    folder: Path,
    spec: Spec,
    config: TuneConfig,
    results: Mapping[str, Any],  # as in metrics/tune.json
    data_digest: str,
    verdict: str,
    taught: TrainingRecord = NOBODY,
    warnings: Sequence[str] = (),
) -> None:
    """Write README.md in the form that model hubs read."""
    lines = [
        *_head("A fixer for novel views, tuned with Splatfix", spec), "",
        "## Made from", "",
        f"- base: {spec.origin}",
        f"- size: {spec.size}",
        f"- pairs: {results['train_pairs']} to learn from, {results['test_pairs']} to check on",
        f"- digest of the pairs: `{data_digest}`",
        f"- taught by: {taught.summary}",
        f"- verdict of the guard against leaks: `{verdict or 'none was given'}`",
        *(f"- note: {warning}" for warning in warnings), "",
        "## On the internal-eval pairs", "",
        *_table(results), "",
        "LPIPS looks through the net that the loss looks through; lower is better.", "",
        "## Parameters", "", "```json", config.model_dump_json(indent=2), "```", "",
        "## Licence", "", _LICENCES,
    ]  # fmt: skip
    _write(folder, lines)


def _head(title: str, spec: Spec) -> list[str]:
    seen = f"expected ({spec.mixing} attention)." if spec.reference else "not used."
    return [
        "---", "library_name: diffusers", "pipeline_tag: image-to-image", "---",
        f"# {title}", "",
        f"Prompt `{spec.prompt}`, one step at t = {spec.timestep}; reference {seen}",
    ]  # fmt: skip


def _write(folder: Path, lines: list[str]) -> None:
    with whole_file(folder / CARD) as scratch:
        scratch.write_text("\n".join(lines) + "\n")


def _table(results: Mapping[str, Any]) -> list[str]:
    rows = [(told, results[name]) for name, told in _ROWS.items() if name in results]
    return ["| | PSNR, dB | SSIM | LPIPS |", "|---|---|---|---|"] + [
        f"| {told} | {_cell(one['psnr'], 2)} | {_cell(one['ssim'], 4)} | {_cell(one['lpips'], 4)} |"
        for told, one in rows
    ]


def _cell(value: float | None, digits: int) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"
