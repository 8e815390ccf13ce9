"""The model card of a fixer: source, training data and results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.difix.config import TuneConfig
from stages.difix.network.spec import Spec
from stages.difix.network.training_record import TrainingRecord
from stages.quality.measured import loss_words, other_losses
from stages.run.files import whole_file

CARD = "README.md"
_ROWS = {
    "identity": "the render as it is",
    "untuned": "the base",
    "untuned_withheld": "the base without its reference",
    "untuned_wrong": "the base with another sample's reference",
    "tuned": "this fixer",
    "tuned_withheld": "this fixer without its reference",
    "tuned_wrong": "this fixer with another sample's reference",
}
_LICENCES = (
    "Weights that started from stabilityai/sd-turbo are under the Stability AI Community Licence, "
    "from nvidia/difix or nvidia/difix_ref under the NVIDIA Licence as well (non-commercial). "
    "The small fixer was trained on procedural worlds by this repository and is under its "
    "licence. Licences of the images that a fixer was tuned on may add terms: Hi4D is for research "
    "only."
)


def write_base_card(folder: Path, spec: Spec, parameters: int, record: TrainingRecord) -> None:
    """Write the card of an untuned fixer."""
    lines = [
        *_head("A fixer for novel views, before it was tuned", spec),
        "",
        "## Made from",
        "",
        f"- origin: {spec.origin}",
        f"- size: {spec.size}, {parameters:,} parameters",
        "- pairs: none; not trained on any scene of the study here",
        f"- trained on: {record.summary}",
        "",
        "## Licence",
        "",
        _LICENCES,
    ]
    _write(folder, lines)


def write_card(
    folder: Path,
    spec: Spec,
    config: TuneConfig,
    results: Mapping[str, Any],
    data_digest: str,
    verdict: str,
    record: TrainingRecord,
    warnings: Sequence[str] = (),
) -> None:
    """Write README.md as model hubs read it.

    Args:
        folder: of the fixer.
        spec: its architecture and use.
        config: params of the tuning.
        results: as in metrics/tune.json.
        data_digest: SHA-256 of the tuning samples.
        verdict: hash of the leak guard's verdict.
        record: what it was trained on.
        warnings: notes for its users.
    """
    lines = [
        *_head("A fixer for novel views, tuned with Splatfix", spec),
        "",
        "## Made from",
        "",
        f"- base: {spec.origin}",
        f"- size: {spec.size}, {results['parameters']:,} parameters",
        *([f"- data: {results['data']}"] if "data" in results else []),
        f"- tuned on: {results['worked_on']}",
        f"- loss that taught it: {loss_words(results['losses'])}",
        *_other_losses(results),
        f"- pairs: {results['train_pairs']} for training, {results['test_pairs']} for validation",
        f"- digest of the pairs: `{data_digest}`",
        f"- trained on: {record.summary}",
        f"- verdict of the leak guard: `{verdict or 'none'}`",
        *(f"- note: {warning}" for warning in warnings),
        "",
        "## On the internal-eval pairs",
        "",
        *_table(results),
        "",
        "LPIPS uses the backbone of the loss; lower is better.",
        "",
        "## Parameters",
        "",
        "As they were set; a term of the loss without its net's weights taught nothing, see above.",
        "",
        "```json",
        config.model_dump_json(indent=2),
        "```",
        "",
        "## Licence",
        "",
        _LICENCES,
    ]
    _write(folder, lines)


def _other_losses(results: Mapping[str, Any]) -> list[str]:
    words = other_losses(results)
    return [f"- **not as its parameters say**: {words}"] if words else []


def _head(title: str, spec: Spec) -> list[str]:
    reference = f"expected ({spec.reference_words})." if spec.reference else "not used."
    return [
        "---",
        "library_name: diffusers",
        "pipeline_tag: image-to-image",
        "---",
        f"# {title}",
        "",
        f"Prompt `{spec.prompt}`, one step at t = {spec.timestep}; reference {reference}",
    ]


def _write(folder: Path, lines: list[str]) -> None:
    with whole_file(folder / CARD) as scratch:
        scratch.write_text("\n".join(lines) + "\n")


def _table(results: Mapping[str, Any]) -> list[str]:
    rows = [(text, results[name]) for name, text in _ROWS.items() if name in results]
    return ["| | PSNR, dB | SSIM | LPIPS |", "|---|---|---|---|"] + [
        f"| {text} | {_cell(one['psnr'], 2)} | {_cell(one['ssim'], 4)} | {_cell(one['lpips'], 4)} |"
        for text, one in rows
    ]


def _cell(value: float | None, digits: int) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"
