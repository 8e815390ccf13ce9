"""Stage `repeat` draws and measures what another seed trained; the training itself is planted."""

import errno
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from exact_scene import SCENE, TIMES, gaussians, write_scene

from stages.quality.keys import repeat_name
from stages.repeat import main
from stages.run import layout
from stages.run.checkpoint import Checkpoint, forget
from stages.run.errors import UserError
from stages.run.files import read_json, read_tsv, write_json
from stages.splat.training import shares, timestamps

SEED = 7
FITTED = SimpleNamespace(
    evaluations=[{"split": "train", "step": 1, "psnr": 30.0}],
    record=lambda: {"evaluations": FITTED.evaluations},
)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """The calls of the training, which gives the scene's own Gaussians, moved a little."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(sys, "argv", ["repeat", "--scene", SCENE, "--seed", str(SEED)])
    evaluate = {"device": "cpu", "masks": "ignore", "lpips": {"net": "alex", "required": False}}
    drawing = {"backend": "cpu", "align": False}
    params = {"train": {"seed": 42, "warm_start": True}, "novel_views": drawing}
    Path("params.yaml").write_text(json.dumps(params | {"evaluate": evaluate}))
    write_scene()
    layout.WEIGHTS.mkdir(parents=True)
    absent = {"found": False, "from": None, "sha256": None, "reason": "no network"}
    write_json(layout.WEIGHTS / "weights.json", {"alex": absent})
    calls: list[SimpleNamespace] = []

    def train(scene, calibrated, timestamp, config, folder, warm, preemption):
        calls.append(SimpleNamespace(timestamp=timestamp, config=config, warm=warm))
        moved = gaussians(timestamp)
        moved.means[:] += 0.01 * torch.randn(
            moved.means.shape, generator=torch.Generator().manual_seed(config.seed)
        )
        moved.save(folder / "gaussians.safetensors")
        return FITTED

    monkeypatch.setattr(timestamps, "train_timestamp", train)
    return calls


def test_every_timestamp_is_trained_by_the_other_seed(
    trained: list[SimpleNamespace], caplog: pytest.LogCaptureFixture
) -> None:
    main()
    assert "below that of an image" not in caplog.text
    first, second = TIMES
    assert [one.timestamp for one in trained] == [second, first]  # the middle of two is the second
    assert {one.config.seed for one in trained} == {SEED}
    assert trained[0].warm is None
    assert trained[1].warm.parent.name == second
    name = repeat_name(SCENE, SEED)
    means = read_json(layout.scene_metrics(name, "none"))
    assert means["views"] == 4
    assert 20 < means["psnr"] < 60
    assert len(read_tsv(layout.view_metrics(name, "none"))) == 4
    assert not layout.splats(name).exists()
    assert (layout.novel_views(name, "none") / "novel_views.json").is_file()


def test_result_below_the_mean_colour_is_warned_of(
    trained: list[SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def lost(scene, calibrated, timestamp, config, folder, warm, preemption):
        elsewhere = gaussians(timestamp)
        elsewhere.means[:] += 100.0
        elsewhere.save(folder / "gaussians.safetensors")
        return FITTED

    monkeypatch.setattr(timestamps, "train_timestamp", lost)
    main()
    assert f"{repeat_name(SCENE, SEED)}: PSNR" in caplog.text
    assert "is below that of an image of the mean colour" in caplog.text


def test_the_same_seed_is_refused(
    trained: list[SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["repeat", "--scene", SCENE, "--seed", "42"])
    with pytest.raises(UserError, match="it would give identical bytes"):
        main()
    assert trained == []


def test_states_and_gaussians_are_its_own_and_removed_at_the_end(
    trained: list[SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage `train` that ends meanwhile, and forgets its states, leaves those of the repeat."""
    name, plant = repeat_name(SCENE, SEED), timestamps.train_timestamp
    states: list[Path] = []
    folders: set[Path] = set()

    def saving(scene, calibrated, timestamp, config, folder, warm, preemption):
        state = Checkpoint("train", scene.name, timestamp)
        state.save({})
        states.append(state.path)
        folders.add(folder.parent)
        forget("train", SCENE)
        assert state.path.is_file()
        return plant(scene, calibrated, timestamp, config, folder, warm, preemption)

    monkeypatch.setattr(timestamps, "train_timestamp", saving)
    main()
    assert {one.parents[1] for one in states} == {Path("work/train", name).absolute()}
    assert {one.parent for one in folders} == {Path("work/repeat").absolute()}
    assert not any(Path("work").rglob("*.safetensors"))
    assert not Path("work/train").exists() or not any(Path("work/train").iterdir())


def test_next_run_removes_the_gaussians_of_a_killed_one(
    trained: list[SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Path] = []

    def killed(scene, calibrated, timestamps, folder, config):
        left.append(folder)
        (folder / "old").mkdir()
        shutil.copytree(folder, Path("copy"))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shares, "train_share", killed)
        with pytest.raises(OSError, match="No space") as error:
            main()
    assert error.value.filename == str(left[0])
    assert not left[0].exists()
    shutil.copytree(Path("copy"), left[0])  # a kill would have left it
    main()
    assert not left[0].exists()
