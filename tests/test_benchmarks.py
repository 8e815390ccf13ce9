"""The benchmarks of DiFix run, and the check of resuming tells a run that does not repeat."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState

from benchmarks import (
    difix_cases,
    difix_infer,
    difix_layers,
    difix_load,
    difix_resume,
    difix_tune,
)
from stages.run.files import read_json, read_tsv

MODULES = sorted(path.stem for path in Path(difix_cases.__file__).parent.glob("[!_]*.py"))
TINY = ["--size", "tiny", "--device", "cpu", "--warmup", "1"]


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a benchmark sets for its whole process is set back."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
    PartialState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_finds_what_it_imports(name: str) -> None:
    """Those that need a GPU or another trainer run in no other test."""
    importlib.import_module(f"benchmarks.{name}")


def rows(main: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[dict]:
    path = folder / "rows.json"
    monkeypatch.setattr(sys, "argv", ["benchmark", *TINY, "--out", str(path), *words])
    main()
    return read_json(path)["rows"]


def test_tuning_steps_are_timed_and_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--sizes", "32", "--cases", "strict:eager", "bf16:eager"]
    curves = tmp_path / "curves.tsv"
    words += ["strict:eager+calls", "--steps", "4", "--net", "squeeze", "--curve-steps", "20"]
    words += ["--curve-cases", "strict:eager", "bf16:eager", "--curves", str(curves)]
    found = rows(difix_tune.main, tmp_path, monkeypatch, *words)
    assert [row["precision"] for row in found] == ["strict", "bf16", "strict"]
    for row in found:
        assert row["slowest_ms"] >= row["value"] > 0
        assert row["last_loss"] < row["first_loss"]
        assert row["backbone"] == "squeeze"
        assert row["target"] is None  # it is of another machine and size
    assert found[0]["last_loss"] != found[1]["last_loss"]
    # A stand-in for the project's own step computes the same.
    assert found[2]["last_loss"] == pytest.approx(found[0]["last_loss"], rel=1e-5)
    output = capsys.readouterr().out
    assert "samples/s" in output
    assert "bf16:eager and strict:eager" in output
    assert len(read_tsv(curves)) == 20
    assert curves.with_suffix(".svg").read_text().count("<polyline") == 2


def test_fixing_is_timed_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--sizes", "32x48", "--repeats", "1", "--views", "2", "--batch", "2", "--cases"]
    words += ["strict:eager", "strict:throughput", "bf16:latency"]
    exact, batched, rough = rows(difix_infer.main, tmp_path, monkeypatch, *words)
    assert exact["relative_difference"] == 0
    assert batched["batch"] == 2
    assert batched["relative_difference"] < 1e-5
    assert 1e-4 < rough["relative_difference"] < 2e-2
    assert rough["views"] == 2


def test_loading_is_timed_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    words = ["--size", "tiny", "--px", "32x48", "--out", str(path)]
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    difix_load.main()
    load, images = read_json(path)["rows"]
    parts = load["imports_s"] + load["read_s"] + load["hash_s"]
    assert load["value"] == pytest.approx(parts, abs=0.02)
    assert load["peak_gb"] > load["gb"]
    assert images["value"] > 0


@pytest.mark.parametrize(
    ("resumed", "tolerance", "code"),
    [
        ({2: 3.0, 3: 4.0, 4: 5.0}, 0.0, 0),
        ({2: 3.0, 3: 4.0, 4: 5.1}, 0.0, 1),
        ({2: 3.0, 3: 4.0, 4: 5.1}, 0.05, 0),
        ({2: 3.0, 3: 4.0, 4: float("nan")}, 0.0, 1),
        ({0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0}, 0.0, 1),  # it began anew
    ],
)
def test_a_run_that_does_not_repeat_fails(
    resumed: dict[int, float], tolerance: float, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {step: step + 1.0 for step in range(5)}
    killed = {step: whole[step] for step in range(4)}
    output = iter([(whole, 0), (killed, 2**30), (resumed, 2**30)])
    monkeypatch.setattr(difix_resume, "_child", lambda *_, **__: next(output))
    given = argparse.Namespace(save_at=2, tolerance=tolerance)
    assert difix_resume.check(given) == code


@pytest.mark.parametrize("shifted", [False, True])
def test_the_normalisation_that_is_compiled_is_torchs(shifted: bool) -> None:
    layer = torch.nn.GroupNorm(4, 12)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 12, 5, 7)
    shift = torch.randn(2, 12) if shifted else None
    given = layer.weight, layer.bias, shift, layer.num_groups, layer.eps
    wanted = layer(x if shift is None else x + shift[..., None, None])
    torch.testing.assert_close(difix_layers.normalised(x, *given, False), wanted)
    silu = torch.nn.functional.silu(wanted)
    torch.testing.assert_close(difix_layers.normalised(x, *given, True), silu)


def test_the_same_fixer_is_made_every_time() -> None:
    one, other = (difix_cases.new_fixer("tiny", torch.device("cpu")) for _ in range(2))
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
