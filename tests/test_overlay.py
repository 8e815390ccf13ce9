"""The overlays that ship with the repository, through the command."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.difix.config import FixerConfig, TuneConfig
from stages.quality.config import EvaluateConfig, WeightsConfig
from stages.run.settings.params import Params
from stages.scenes.config import CalibrateConfig, PairsConfig, PrepareConfig
from stages.splat.config import DistillConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "studies"
# The hyperparameters of the user's training scripts.
SEED = {
    "data_factor": 1,
    "save_ply": True,
    "pose_opt": True,
    "antialiased": True,
    "eval_steps": [3000, 7000, 30000],
    "ply_steps": [3000, 7000, 30000],
    "scale_reg": 0.0005,
    "scales_lr": 0.003,
    "means_lr": 0.00012,
}
SEED_STRATEGY = {
    "reset_every": 100000,
    "pause_refine_after_reset": 0,
    "prune_scale3d": 0.22,
    "prune_scale2d": 0.12,
    "prune_opa": 0.006,
    "grow_grad2d": 0.00035,
    "grow_scale3d": 0.012,
    "refine_stop_iter": 26000,
    "refine_scale2d_stop_iter": 26000,
}
# Sections whose class defaults are for full-size data; the overlay puts them in force.
FULL_SIZE = {
    "prepare": PrepareConfig,
    "calibrate": CalibrateConfig,
    "train": TrainConfig,
    "pairs": PairsConfig,
    "difix": FixerConfig,
    "tune": TuneConfig,
    "distill": DistillConfig,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a copy of params.yaml, to run the command in."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def overlay(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.overlay", *map(str, arguments)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_seed_then_demo_gives_back_the_same_bytes(folder: Path) -> None:
    path, before = folder / "params.yaml", (ROOT / "params.yaml").read_bytes()
    done = overlay(folder, STUDIES / "full.yaml")
    assert done.returncode == 0, done.stderr
    raw = YAML(typ="safe").load(path)
    assert {key: raw["train"][key] for key in SEED} == SEED
    assert {key: raw["train"]["strategy"][key] for key in SEED_STRATEGY} == SEED_STRATEGY
    assert raw["train"]["max_steps"] == 30000
    for name, model in FULL_SIZE.items():
        assert Params.read(path).section(name, model) == model(), name
    done = overlay(folder, STUDIES / "demo.yaml")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == before


def test_lpips_by_two_nets_is_one_command(folder: Path) -> None:
    done = overlay(folder, STUDIES / "lpips.yaml")
    assert done.returncode == 0, done.stderr
    params = Params.read(folder / "params.yaml")
    assert params.section("evaluate", EvaluateConfig).lpips.nets == ("alex", "vgg")
    assert params.section("weights", WeightsConfig).nets == ("alex", "vgg")
    back = overlay(folder, STUDIES / "demo.yaml")
    assert back.returncode == 0, back.stderr
    assert (folder / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


# Keys of `train:` that the scripts take from params.yaml: about the machine, and about the data.
KEPT = {"backend", "execution", "rasteriser", "background", "masks"}
OTHER = {
    "backend": "cpu",
    "execution": "eager",
    "rasteriser": "gsplat",
    "init_type": "random",
    "background": [0.5, 0.5, 0.5],
    "kind": "mcmc",
    "pose_opt_lr": 0.5,
    "pose_opt_reg": 0.5,
}


def changed(node: dict) -> dict:
    """Every value of a section replaced by another valid one."""
    other = {}
    for key, value in node.items():
        if isinstance(value, dict):
            other[key] = changed(value)
        elif isinstance(value, bool):
            other[key] = not value
        elif isinstance(value, list):
            other[key] = OTHER.get(key, [7])
        elif isinstance(value, str):
            other[key] = OTHER.get(key, "x")
        elif isinstance(value, int):
            other[key] = value + 1 if key != "sh_degree" else 0
        else:
            other[key] = value / 2 or 0.5
    return other


def test_no_value_of_training_but_those_of_data_and_machine_reaches_a_recipe_s_run(
    folder: Path,
) -> None:
    """What a run trains by is equal whatever params.yaml holds."""
    path, recipe = folder / "params.yaml", STUDIES / "full.yaml"
    usual = Params.read(path, [recipe]).section("train", TrainConfig).model_dump()
    yaml = YAML()
    raw = yaml.load(path)
    before, raw["train"] = raw["train"], changed(raw["train"])
    yaml.dump(raw, path)
    own = Params.read(path).section("train", TrainConfig).model_dump()
    assert set(own) == set(before), "all keys"
    assert own["strategy"].keys() == before["strategy"].keys()
    for key, value in Params.read(ROOT / "params.yaml").section("train", TrainConfig):
        assert key == "runtime" or own[key] != value, f"{key} was not changed"
    ours = Params.read(path, [recipe]).section("train", TrainConfig).model_dump()
    assert {key for key in usual if ours[key] != usual[key]} == KEPT
    assert usual == TrainConfig().model_dump()


def test_demo_is_in_force() -> None:
    """params.yaml holds the demo's values, so that a fresh clone runs on a laptop."""
    done = overlay(ROOT, "studies/demo.yaml", "--check")
    assert done.stdout == "params.yaml has these values already\n"


def test_demo_takes_back_every_key_that_another_overlay_sets() -> None:
    def keys(node: object, above: str = "") -> set[str]:
        if not isinstance(node, dict):
            return {above}
        return {name for key, value in node.items() for name in keys(value, f"{above}.{key}")}

    demo = keys(YAML(typ="safe").load(STUDIES / "demo.yaml"))
    for path in STUDIES.glob("*.yaml"):
        assert keys(YAML(typ="safe").load(path)) <= demo, path.name


def commit(folder: Path) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in ("init -q", "add params.yaml", "commit -qm x"):
        subprocess.run(["git", *who, *words.split()], cwd=folder, check=True)


def test_the_study_below_an_overlay_is_named(folder: Path) -> None:
    commit(folder)
    shutil.copytree(STUDIES, folder / "studies")
    (folder / "studies" / "a.yaml").write_text("nosuch: 1\n")
    (folder / "studies" / "b.yaml").write_text("train: [\n")
    count = int(overlay(folder, "studies/full.yaml").stdout.splitlines()[-1].split()[0])
    lines = overlay(folder, "studies/budget.yaml").stdout.splitlines()
    (below,) = (line for line in lines if line.startswith("on top of "))
    shared = 3  # train.max_gaussians, strategy.kind and halve_every, which full.yaml sets too
    assert count - shared <= int(below.split()[4]) <= count
    assert below.startswith("on top of studies/full.yaml: ")
    assert not any(line.startswith("left from before") for line in lines)
    overlay(folder, "studies/full.yaml", "--check")
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("  seed: 42\n", "  seed: 43\n", 1))
    lines = overlay(folder, "studies/budget.yaml").stdout.splitlines()
    assert any(line.startswith("left from before") for line in lines)


def test_values_that_an_earlier_overlay_left_are_named(folder: Path) -> None:
    def left(*arguments: str | Path) -> list[str]:
        lines = overlay(folder, *arguments).stdout.splitlines()
        return [line for line in lines if line.startswith("left from before")]

    (folder / "first.yaml").write_text("train:\n  seed: 7\n  max_steps: 9\ntune:\n  steps: 3\n")
    (folder / "second.yaml").write_text("train:\n  max_steps: 11\n")
    assert not left("first.yaml")
    assert not left("second.yaml"), "params.yaml is in no repository"
    commit(folder)
    assert not left("second.yaml", "--check")
    shutil.copy(ROOT / "params.yaml", folder)
    said = "left from before, unlike the committed params.yaml: 2 values (train.seed, tune.steps)"
    said += "; `python -m stages.overlay studies/demo.yaml` first takes back what a study set"
    assert left("second.yaml", "--check") == left("second.yaml") == [said]
    assert not left(STUDIES / "demo.yaml", "--check"), "it sets these keys"
    shutil.copy(ROOT / "params.yaml", folder)
    commit(folder)
    count = int(overlay(folder, STUDIES / "full.yaml").stdout.splitlines()[-1].split()[0]) - 1
    (many,) = left("second.yaml")  # all but train.max_steps
    assert f": {count} values (prepare.height_px, " in many
    assert many.partition("(")[2].count(", ") == 4
    assert f" and {count - 5} more); " in many
    good = (folder / "params.yaml").read_bytes()
    for foreign in (b"# caf\xe9\n" + good, good.decode().encode("utf-16")):
        (folder / "params.yaml").write_bytes(foreign)
        commit(folder)
        (folder / "params.yaml").write_bytes(good)
        done = overlay(folder, "second.yaml", "--check")
        assert "train.max_steps" in done.stdout or "has these values already" in done.stdout
        assert "Traceback" not in done.stderr


def test_one_change_is_counted_as_one(folder: Path) -> None:
    study = folder / "one.yaml"
    study.write_text("train:\n  max_steps: 12345\n")
    assert overlay(folder, study, "--check").stdout.endswith(
        "\n1 value would change; nothing was written\n"
    )
    assert overlay(folder, study).stdout.endswith(
        "\n1 value changed; next: python -m stages.check\n"
    )


def test_check_prints_each_change_and_writes_nothing(folder: Path) -> None:
    before = (folder / "params.yaml").read_bytes()
    done = overlay(folder, STUDIES / "full.yaml", "--check")
    assert "train.max_steps: " in done.stdout
    assert " -> 30000\n" in done.stdout
    assert done.stdout.endswith("would change; nothing was written\n")
    assert (folder / "params.yaml").read_bytes() == before


def test_unknown_key_leaves_the_file_as_it_was(folder: Path) -> None:
    (folder / "v1.yaml").write_text("train:\n  max_steps: 5\n  max_stepz: 7\n")
    before = (folder / "params.yaml").read_bytes()
    done = overlay(folder, "v1.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("v1.yaml:3  train.max_stepz: params.yaml has no such key\n")
    assert "did you mean max_steps?" in done.stderr
    assert (folder / "params.yaml").read_bytes() == before
