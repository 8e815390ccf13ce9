"""Model cards: front matter, source and results."""

from pathlib import Path

from fixers import tiny_spec
from ruamel.yaml import YAML
from tuning import tune_config

from stages.difix.network.training_record import TrainingRecord
from stages.difix.weights.card import write_base_card, write_card

ROW = {"psnr": 21.5, "ssim": 0.7, "lpips": 0.125}
RESULTS = {
    "identity": ROW,
    "untuned": ROW | {"lpips": None},
    "tuned": ROW | {"psnr": 23.456},
    "train_pairs": 24,
    "test_pairs": 4,
    "parameters": 1_234_567,
    "data": "embedded demo: ray-traced people",
    "worked_on": "whole images of 192x256 px",
    "losses": {"l2": 1.0, "lpips": 0.0, "gram": 0.0, "net": None},
    "losses_note": "no weights of vgg: no network; L2 alone is left",
}


def read(folder: Path) -> tuple[dict, str]:
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    return YAML(typ="safe").load(front), body


def test_base_card(tmp_path: Path) -> None:
    write_base_card(tmp_path, tiny_spec(origin="procedural"), 1_234_567, TrainingRecord())
    front, body = read(tmp_path)
    assert front == {"library_name": "diffusers", "pipeline_tag": "image-to-image"}
    for part in ("origin: procedural", "1,234,567 parameters", "expected (one_way attention)"):
        assert part in body


def test_tuned_card(tmp_path: Path) -> None:
    write_card(
        tmp_path,
        tiny_spec(origin="mine, tuned"),
        tune_config(),
        RESULTS,
        "ab12",
        "cd34",
        TrainingRecord(),
    )
    _, body = read(tmp_path)
    assert "| this fixer | 23.46 | 0.7000 | 0.1250 |" in body
    assert "| the base | 21.50 | 0.7000 | not measured |" in body
    assert "without its reference" not in body
    assert "- loss that taught it: 1 L2\n" in body, "LPIPS had no weights"
    assert (
        "- **not as its parameters say**: no weights of vgg: no network; L2 alone is left" in body
    )
    assert "- tuned on: whole images of 192x256 px" in body
    assert "- data: embedded demo: ray-traced people\n" in body
    assert "1,234,567 parameters" in body
    for part in ("24 for training, 4 for validation", "`ab12`", "`cd34`", '"steps": 6'):
        assert part in body
