import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.run.errors import UserError
from stages.samples.index import SampleIndex, SampleRecord, metrics, read_index, write_index


def record(**changed: Any) -> SampleRecord:
    files = {"image": "a" * 64, "target_image": "b" * 64, "ref_image": "c" * 64}
    values: dict[str, Any] = {
        "files": files,
        "step": None,
        "left_out": False,
        "poses": "imperfect",
        "psnr": 21.5,
    }
    values |= {"name": "000001_28", "camera": "28", "timestamp": "000001"}
    return SampleRecord(**{**values, "ref_camera": "16", "ref_timestamp": "000001", **changed})


INDEX = SampleIndex(
    "hi4d_pair00_dance",
    "pair00",
    "train",
    {"source": {"000001/16": "c" * 64}, "target": {"000001/28": "b" * 64}},
    (record(), record(name="000001_64", psnr=23.0)),
)


def test_index_survives_writing_and_reading(tmp_path: Path) -> None:
    write_index(tmp_path, INDEX)
    assert read_index(tmp_path) == INDEX
    assert read_index(tmp_path).digest == INDEX.digest


@pytest.mark.parametrize(
    "changed",
    [
        {"group": "pair15"},
        {"split": "test"},
        {"photographs": {"source": {}, "target": {}}},
        {"pairs": (record(psnr=21.6), INDEX.pairs[1])},
        {"pairs": INDEX.pairs[::-1]},
    ],
)
def test_digest_covers_everything(changed: dict[str, Any]) -> None:
    assert replace(INDEX, **changed).digest != INDEX.digest


def test_metrics_are_scalars() -> None:
    assert metrics(INDEX) == {
        "pairs": 2,
        "psnr": 22.25,
        "psnr_min": 21.5,
        "psnr_max": 23.0,
        "digest": INDEX.digest,
    }


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        json.dumps({"pairs": 3}),
        json.dumps({"scene": 1, "group": 1, "split": 1, "photographs": {}, "pairs": []}),
    ],
)
def test_broken_index_is_a_user_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.json").write_text(text)
    with pytest.raises(UserError, match=r"pairs.json"):
        read_index(tmp_path)
