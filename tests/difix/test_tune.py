"""Stage `tune` from its entry, with real files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_samples import PATHS, write_dataset
from small_study import small_study
from tuning import (
    no_weights,
    one_run,  # noqa: F401
    small_fixer,
    small_spec,
    tune_config,
    write_study,
)

from stages.difix.config import LossConfig, TuneConfig
from stages.difix.network.training_record import TUNING_FILE
from stages.difix.tuning.inputs import TuningData, checkpoint_key, initial_fixer
from stages.difix.tuning.results import write_fixer
from stages.difix.tuning.runs import tune
from stages.difix.weights.folders import read_folder, write_folder
from stages.run import layout
from stages.run.artefacts import PROGRESS
from stages.run.checkpoint import Checkpoint
from stages.run.curves import of_training
from stages.run.errors import UserError
from stages.run.files import WORK_ROOT_VARIABLE, folder_hash, read_json, read_tsv
from stages.run.trainings import Training
from stages.samples.dataset import read_split
from stages.samples.manifest import check_dataset
from stages.tune import main

SAMPLES = Path("data/pairs")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a dataset, an untuned fixer and no LPIPS weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(WORK_ROOT_VARIABLE, str(tmp_path / "work"))
    write_study()
    write_folder(small_fixer(), Path("data/difix/base"))
    no_weights(Path("data/weights"))
    return tmp_path


def write_params(**values: object) -> TuneConfig:
    config = tune_config(**values)
    params = {"tune": config.model_dump(), "study": small_study().model_dump()}
    params["runtime"] = {"tune": config.runtime.model_dump()}
    Path("params.yaml").write_text(json.dumps(params))
    return config


def command() -> list[str]:
    return [sys.executable, "-m", "stages.tune"]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run_stage() -> subprocess.CompletedProcess:
    return subprocess.run(command(), env=environment(), capture_output=True, text=True)


def run_here(config: TuneConfig, name: str = "here") -> list[dict]:
    """Tune in this process; the curve."""
    data = TuningData(Path("data/difix/dataset.json"), SAMPLES)
    base, weights = Path("data/difix/base"), Path("data/weights")
    return tune(data, base, weights, config, Checkpoint("tune", name)).curve


@pytest.mark.slow
def test_the_stage_writes_a_fixer_its_metrics_and_curves(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_home = home / "user"
    user_home.mkdir()
    monkeypatch.setenv("HOME", str(user_home))
    for name in ("HF_HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    write_params(steps=4, validate_every=2)
    ended = run_stage()
    assert ended.returncode == 0, ended.stderr
    tuned = Path("data/difix/tuned")
    fixer, base = read_folder(tuned), read_folder(Path("data/difix/base"))
    assert not torch.equal(fixer.unet.conv_in.weight, base.unet.conv_in.weight)
    assert fixer.spec.origin.endswith("tuned")
    samples = sorted(path.name for path in (tuned / "samples").iterdir())
    assert samples == ["step_000002.png", "step_000004.png"]
    metrics = read_json(Path("metrics/tune.json"))
    references = ("", "_withheld", "_wrong")
    rows = ["identity", *(f"{one}{how}" for one in ("untuned", "tuned") for how in references)]
    for row in rows:
        assert set(metrics[row]) == {"psnr", "ssim", "lpips"}
    assert metrics["untuned"]["psnr"] == metrics["identity"]["psnr"]  # an untrained residual
    assert metrics["identity"]["lpips"] is None
    assert (metrics["steps"], metrics["train_pairs"], metrics["test_pairs"]) == (4, 4, 2)
    assert not any("second" in key or "time" in key for key in metrics)
    kept = read_json(tuned / TUNING_FILE)
    assert metrics.items() <= kept.items(), "what the study says of a tuning lies with the fixer"
    losses = read_tsv(Path("metrics/plots/tune/loss.tsv"))
    assert [row["step"] for row in losses] == ["1", "2", "3", "4"]
    curve = read_tsv(Path("metrics/plots/tune/validation.tsv"))
    assert [row["step"] for row in curve] == ["0", "2", "4"]
    assert float(curve[-1]["psnr"]) == metrics["tuned"]["psnr"]
    card = (tuned / "README.md").read_text()
    assert check_dataset(Path("data/difix/dataset.json"), small_study(), PATHS).hash in card
    assert f"{metrics['tuned']['psnr']:.2f}" in card
    assert (home / "work" / "cost" / "tune" / "fixer.json").is_file()
    assert not (home / "work" / "tune" / "fixer").exists()
    # Caches are where params say, never in the user's home folder.
    assert [path for path in user_home.rglob("*") if path.is_file()] == []


@pytest.mark.slow
@pytest.mark.usefixtures("one_run")
def test_a_killed_run_leaves_no_fixer_and_resumes_to_the_same_bytes(home: Path) -> None:
    config = write_params(steps=60, checkpoint_every=1, validate_every=60)
    data, base = (
        TuningData(Path("data/difix/dataset.json"), SAMPLES, layout.scene),
        Path("data/difix/base"),
    )
    checkpoint = Checkpoint("whole", "fixer")
    verdict = check_dataset(data.path, small_study(), PATHS).hash
    tuner = tune(data, base, Path("data/weights"), config, checkpoint)
    watched = of_training(Training.read(checkpoint.folder / PROGRESS))
    assert watched.series["loss"] == [(row["step"], row["loss"]) for row in tuner.curve]
    assert [step for step, _ in watched.series["validation_psnr"]] == [0]
    write_fixer(tuner, data, base, home / "whole", checkpoint, verdict)
    with subprocess.Popen(command(), env=environment()) as torn:
        while not newest(Path("work/tune")) and torn.poll() is None:
            time.sleep(0.01)
        torn.kill()
        assert torn.wait(60) == -signal.SIGKILL
    assert not Path("data/difix/tuned").exists()
    assert not Path("metrics/tune.json").exists()
    ended = run_stage()
    assert "resumed at step" in ended.stderr
    assert folder_hash(Path("data/difix/tuned")) == folder_hash(home / "whole")
    losses = read_tsv(Path("metrics/plots/tune/loss.tsv"))
    assert [float(row["loss"]) for row in losses] == [row["loss"] for row in tuner.curve]


def test_losses_without_weights_are_recorded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = LossConfig(l2=1.0, lpips=0.1, gram=0.0, net="vgg")
    write_params(steps=1, validate_every=1, losses=losses)
    monkeypatch.setattr(sys, "argv", ["tune"])
    main()
    recorded = json.loads(Path("metrics/tune.json").read_text())
    assert recorded["losses"] == {"l2": 1.0, "lpips": 0.0, "gram": 0.0, "ssim": 0.0, "net": None}
    assert recorded["losses_note"].endswith("the LPIPS and Gram terms are off, L2 alone is left")
    card = Path("data/difix/tuned/README.md").read_text()
    assert f"**not as its parameters say**: {recorded['losses_note']}" in card
    write_params(steps=1, validate_every=1)
    main()
    assert "losses_note" not in json.loads(Path("metrics/tune.json").read_text()), (
        "L2 was asked for"
    )


def test_a_leak_in_an_edited_dataset_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params()
    path = Path("data/difix/dataset.json")
    content = json.loads(path.read_text())
    content["train"]["extra"] = next(iter(content["test"].values()))
    path.write_text(json.dumps(content))
    monkeypatch.setattr(sys, "argv", ["tune"])
    with pytest.raises(UserError, match="hi4d_pair02_dance"):
        main()
    assert not Path("data/difix/tuned").exists()


def newest(states: Path) -> float:
    """When the state was saved last."""
    return max((path.stat().st_mtime for path in states.rglob("state.pt")), default=0.0)


@pytest.mark.slow
@pytest.mark.usefixtures("one_run")
def test_two_processes_equal_one_that_accumulates(home: Path) -> None:
    alone = run_here(write_params(steps=3, accumulation=2, reference_dropout=0.5))
    write_params(steps=3, processes=2, reference_dropout=0.5)
    ended = run_stage()
    assert ended.returncode == 0, ended.stderr
    assert "2 processes" in ended.stdout
    shared = read_tsv(Path("metrics/plots/tune/loss.tsv"))
    assert len(shared) == len(alone) == 3
    for one, two in zip(alone, shared, strict=True):
        assert float(two["loss"]) == pytest.approx(one["loss"], rel=1e-4)
        assert float(two["grad_norm"]) == pytest.approx(one["grad_norm"], rel=1e-3)
    metrics = read_json(Path("metrics/tune.json"))
    assert metrics["test_pairs"] == 2
    assert metrics["tuned"]["psnr"] != metrics["untuned"]["psnr"]


def workers_of(pid: int) -> list[int]:
    """Processes that a process started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_several_processes_stop_together_and_end_with_their_parent(home: Path) -> None:
    write_params(steps=100_000, processes=2, checkpoint_every=1, validate_every=100_000)
    for number in (signal.SIGINT, signal.SIGKILL):
        before = newest(Path("work/tune"))
        started = subprocess.Popen(
            command(), env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        while newest(Path("work/tune")) == before and started.poll() is None:
            time.sleep(0.02)
        assert len(workers_of(started.pid)) == 2
        # Ctrl-C of a terminal reaches the whole group.
        (os.killpg if number == signal.SIGINT else os.kill)(started.pid, number)
        # Their output ends when the last of them has ended.
        _, stderr = started.communicate(timeout=120)
        if number == signal.SIGINT:
            assert started.returncode == 75, stderr
            assert "Traceback" not in stderr
            assert "run again to resume" in stderr
        else:
            assert "resumed at step" in stderr
    assert not Path("data/difix/tuned").exists()


@pytest.mark.usefixtures("one_run")
def test_a_run_can_start_from_other_weights(home: Path) -> None:
    write_folder(small_fixer(seed=5), Path("other"))
    fixer = initial_fixer(Path("data/difix/base"), "other")
    wanted = small_fixer(seed=5)
    assert torch.equal(fixer.unet.conv_in.weight, wanted.unet.conv_in.weight)
    assert "other" in fixer.spec.origin


def test_weights_of_another_architecture_are_refused(home: Path) -> None:
    spec = small_spec()
    wide = spec.changed(unet=spec.unet | {"block_out_channels": [16, 48]})
    from stages.difix.network.model import random_fixer

    write_folder(random_fixer(wide, 0), Path("other"))
    with pytest.raises(UserError, match="another architecture"):
        initial_fixer(Path("data/difix/base"), "other")
    with pytest.raises(UserError, match="no such folder"):
        initial_fixer(Path("data/difix/base"), "nowhere")


def test_another_prompt_than_the_fixers_is_refused(home: Path) -> None:
    data = TuningData(write_dataset(Path("data/difix"), prompt="paint a horse"), SAMPLES)
    with pytest.raises(UserError, match="the prompt 'paint a horse'"):
        tune(
            data, Path("data/difix/base"), Path("data/weights"), tune_config(), Checkpoint("t", "x")
        )


def test_the_multiple_must_suit_the_fixer(home: Path) -> None:
    data = TuningData(Path("data/difix/dataset.json"), SAMPLES)
    with pytest.raises(UserError, match=r"tune\.multiple"):
        tune(
            data,
            Path("data/difix/base"),
            Path("data/weights"),
            tune_config(multiple=6),
            Checkpoint("t", "x"),
        )


def test_the_checkpoint_key_covers_all_inputs(home: Path) -> None:
    path, base, config = Path("data/difix/dataset.json"), Path("data/difix/base"), tune_config()
    keys = [checkpoint_key(TuningData(path, SAMPLES), base, config)]
    Path("work").mkdir()
    Path("work/something").write_text("else")
    assert keys == [checkpoint_key(TuningData(path, SAMPLES), base, config)]
    keys.append(checkpoint_key(TuningData(path, SAMPLES), base, tune_config(lr=1.0)))
    image = read_split(path, "train")[0].image
    image.write_bytes(read_split(path, "train")[1].image.read_bytes())
    keys.append(checkpoint_key(TuningData(path, SAMPLES), base, config))
    state = load_file(base / "prompt_embedding.safetensors")
    save_file({"prompt": state["prompt"] + 1}, base / "prompt_embedding.safetensors")
    keys.append(checkpoint_key(TuningData(path, SAMPLES), base, config))
    assert len(set(keys)) == 4
