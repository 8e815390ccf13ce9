"""Stage `average` measures the pixel mean of the renders of all seeds, as any method."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from exact_scene import SCENE, write_scene
from small_study import small_study

from stages.average import main
from stages.quality.keys import repeat_name
from stages.run import layout
from stages.run.files import read_json, read_tsv, write_json
from stages.scenes.images import write_png
from stages.scenes.novel_views import novel_view_path, write_info
from stages.scenes.scene import Scene

OFFSETS = {SCENE: 40 / 255, repeat_name(SCENE, 1): -20 / 255}  # of the mean: 10 / 255


@pytest.fixture(autouse=True)
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Two trainings whose renders are the ground truth, lighter and darker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(sys, "argv", ["average"])
    write_params((1,))
    write_scene()
    absent = {"found": False, "from": None, "sha256": None, "reason": "no network"}
    write_json(layout.WEIGHTS / "weights.json", {"alex": absent})
    scene = Scene.read(layout.scene(SCENE))
    for name, offset in OFFSETS.items():
        folder = layout.novel_views(name, "none")
        kinds = ["given", "aligned"] if name == SCENE else ["given"]
        for kind in kinds:
            for view in scene.views("target"):
                write_png(novel_view_path(folder, kind, view), view.image()[0] + offset)
        write_info(folder, {"kinds": kinds})
    return scene


def write_params(seeds: tuple[int, ...]) -> None:
    study = small_study().model_dump()
    study |= {"seeds": seeds, "downstream_scenes": [SCENE], "evaluated_scenes": [SCENE]}
    evaluate = {"device": "cpu", "masks": "ignore", "lpips": {"net": "alex", "required": False}}
    Path("params.yaml").write_text(json.dumps({"study": study, "evaluate": evaluate}))


def test_mean_of_the_renders_is_measured(scene: Scene) -> None:
    main()
    of_scenes, of_views = layout.averaged()
    means, rows = read_json(of_scenes)[SCENE], read_tsv(of_views)
    views = list(scene.views("target"))
    assert means["views"] == len(rows) == len(views)
    # By hand: the mean of the images as they are on disk, over valid pixels, in 8 bits.
    image, valid = views[0].image()
    truth = np.rint(255 * image[valid])
    renders = [np.clip(truth + np.rint(255 * offset), 0, 255) for offset in OFFSETS.values()]
    error = np.square(np.rint(np.mean(renders, axis=0)) - truth).mean() / 255**2
    assert float(rows[0]["psnr"]) == pytest.approx(-10 * np.log10(error), abs=1e-4)
    assert means["psnr_aligned"] is None  # one training did not align
    assert means["protocol"].startswith(f"{views[0].camera.width}x{views[0].camera.height}, ")


def test_without_seeds_nothing_is_averaged(capsys: pytest.CaptureFixture[str]) -> None:
    write_params(())
    main()
    of_scenes, of_views = layout.averaged()
    assert read_json(of_scenes) == {}
    assert read_tsv(of_views) == []
    assert "study.seeds is empty" in capsys.readouterr().out
