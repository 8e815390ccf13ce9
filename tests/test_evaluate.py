"""Stage `evaluate` on a small scene, with LPIPS and without its weights."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_study import small_study

from stages.evaluate import main
from stages.quality.metrics.psnr import psnr
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import read_json, read_tsv, write_json
from stages.scenes.config import PrepareConfig, SceneEntry
from stages.scenes.images import read_image, write_mask, write_png
from stages.scenes.novel_views import novel_view_path, write_info
from stages.scenes.scene import Scene
from stages.scenes.sources.importer import import_scene

SCENE = "hi4d_pair15_fight"


@pytest.fixture
def scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw_sequence: Callable[..., Path]
) -> Scene:
    """Two timestamps of two source cameras and one target; renders are photographs plus noise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate", "--scene", SCENE])
    write_params()
    entry = SceneEntry(
        source="hi4d", source_cameras=("4", "16"), target_cameras=("28",), timestamps=2
    )
    raw = raw_sequence(tmp_path / "raw")
    layout.scene(SCENE).mkdir(parents=True)
    import_scene(SCENE, entry, PrepareConfig(), raw, layout.scene(SCENE))
    prepared = Scene.read(layout.scene(SCENE))
    draw_views(prepared, ["given", "aligned"])
    absent = {"found": False, "from": None, "sha256": None, "reason": "no network"}
    write_json(layout.WEIGHTS / "weights.json", {"alex": absent})
    return prepared


def write_params(masks: str = "ignore", required: bool = False) -> None:
    lpips = {"net": "alex", "required": required}
    evaluate = {"device": "cpu", "masks": masks, "lpips": lpips}
    params = {"evaluate": evaluate, "study": small_study().model_dump()}
    Path("params.yaml").write_text(json.dumps(params))


def draw_views(scene: Scene, kinds: list[str]) -> None:
    folder = layout.novel_views(SCENE, "none")
    rng = np.random.default_rng(0)
    for view in scene.views("target"):
        for kind, size in zip(kinds, (0.2, 0.1), strict=False):
            noise = size * rng.standard_normal(view.pixels().shape).astype(np.float32)
            write_png(novel_view_path(folder, kind, view), np.clip(view.pixels() + noise, 0, 1))
    write_info(folder, {"kinds": kinds})


def of_scene() -> dict:
    return read_json(layout.scene_metrics(SCENE, "none"))


def test_writes_rows_means_and_a_line(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    main()
    rows, means = read_tsv(layout.view_metrics(SCENE, "none")), of_scene()
    assert [(row["timestamp"], row["camera"]) for row in rows] == [
        ("000021", "28"),
        ("000023", "28"),
    ]
    view = scene.views("target")[1]
    render = read_image(layout.novel_views(SCENE, "none") / "given" / "000023" / "28.png")
    pair = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (view.pixels(), render))
    assert float(rows[1]["psnr"]) == pytest.approx(float(psnr(*pair)), abs=1e-5)
    assert means["psnr"] == pytest.approx(np.mean([float(row["psnr"]) for row in rows]), abs=1e-5)
    assert means["psnr_aligned"] > means["psnr"] + 3
    assert means["views"] == 2
    assert means["protocol"].startswith("96x128, 2 views ")
    printed = capsys.readouterr()
    assert f"{SCENE} none: 2 views, PSNR {means['psnr']:.2f} dB" in printed.out
    assert "WARNING" in printed.err


@pytest.mark.parametrize("is_right", [True, False])
def test_scene_below_the_mean_colour_is_warned_of(
    scene: Scene, caplog: pytest.LogCaptureFixture, is_right: bool
) -> None:
    for view in scene.views("target"):
        render = view.pixels() if is_right else 1 - view.pixels()
        write_png(novel_view_path(layout.novel_views(SCENE, "none"), "given", view), render)
    main()
    warning = f"{SCENE} by none: PSNR"
    assert (warning in caplog.text) == (not is_right)


def test_missing_weights_leave_lpips_empty_and_say_why(scene: Scene) -> None:
    main()
    means = of_scene()
    assert means["lpips"] is None
    assert means["lpips_note"] == "no weights of alex: no network"
    assert all(row["lpips"] == "" for row in read_tsv(layout.view_metrics(SCENE, "none")))


def test_required_lpips_without_weights_is_an_error_and_writes_nothing(scene: Scene) -> None:
    write_params(required=True)
    with pytest.raises(UserError, match="no weights of alex: no network"):
        main()
    assert not Path("metrics").exists()


def test_mean_color_is_of_the_source_photographs(scene: Scene) -> None:
    for view in scene.views("source"):
        write_png(view.image_path, np.full((128, 96, 3), 0.8, np.float32))
    main()
    flat = [-10 * np.log10(np.square(view.pixels() - 0.8).mean()) for view in scene.views("target")]
    assert of_scene()["mean_color_psnr"] == pytest.approx(np.mean(flat), abs=1e-5)


def test_without_aligned_pictures_those_columns_are_empty(scene: Scene) -> None:
    draw_views(scene, ["given"])
    main()
    assert of_scene()["psnr_aligned"] is None
    assert of_scene()["psnr"] > 10


def test_people_are_measured_apart(scene: Scene) -> None:
    write_params(masks="people")
    for view in scene.views("target"):
        mask = np.zeros((128, 96), bool)
        mask[:64] = True
        write_mask(view.mask_path, mask)
        image = view.pixels()
        image[64:] = 0
        write_png(novel_view_path(layout.novel_views(SCENE, "none"), "given", view), image)
    main()
    assert of_scene()["mpsnr"] > 40 > of_scene()["psnr"]
    assert of_scene()["protocol"].endswith("masks people")
    # The box has the upper half and a margin of 4 rows, which are black.
    assert of_scene()["psnr"] < of_scene()["crop_psnr"] < of_scene()["mpsnr"]
    for view in scene.views("target"):
        view.mask_path.unlink()
    with pytest.raises(UserError, match="no people mask beside it"):
        main()
    write_params(masks="auto")
    main()
    assert of_scene()["mpsnr"] is of_scene()["crop_psnr"] is None
    assert of_scene()["psnr"] > 0


def test_people_are_measured_at_every_strength(scene: Scene) -> None:
    """The upper half, which the fixer mends; the lower one it spoils, so whole images lose."""
    methods = {"methods": ["none", "base-post"], "fixers": ["base"], "subject": "base-post"}
    for view in scene.views("target"):
        write_mask(view.mask_path, np.indices((128, 96))[0] < 60)
        fixed = view.pixels()
        fixed[64:] = 1 - fixed[64:]
        write_png(novel_view_path(layout.novel_views(SCENE, "base-post"), "given", view), fixed)
    write_info(layout.novel_views(SCENE, "base-post"), {"kinds": ["given"]})
    for masks in ("ignore", "auto"):
        write_params(masks=masks)
        params = json.loads(Path("params.yaml").read_text())
        params["study"] |= methods
        Path("params.yaml").write_text(json.dumps(params))
        main()
        rows = read_tsv(layout.frontier(SCENE, "base-post"))
        whole = [[row[name] for name in ("strength", "psnr", "ssim")] for row in rows]
        if masks == "ignore":
            assert all(row["crop_psnr"] == row["crop_ssim"] == "" for row in rows)
            before = whole
    assert whole == before
    people = [float(row["crop_psnr"]) for row in rows]
    assert people == sorted(people)
    assert people[-1] > people[0] + 20
    assert float(whole[-1][1]) < float(whole[0][1])
    for row, method in ((rows[0], "none"), (rows[-1], "base-post")):
        means = read_json(layout.scene_metrics(SCENE, method))
        assert float(row["crop_psnr"]) == means["crop_psnr"]


def test_missing_or_odd_pictures_are_named(scene: Scene) -> None:
    render = layout.novel_views(SCENE, "none") / "given" / "000021" / "28.png"
    write_png(render, np.zeros((64, 64, 3), np.float32))
    with pytest.raises(UserError, match=r"28\.png: 64x64 px\nexpected 96x128 px"):
        main()
    render.unlink()
    with pytest.raises(UserError, match=r"28\.png: no such file"):
        main()
    assert not Path("metrics").exists()


def test_real_weights_fill_lpips(scene: Scene, lpips_weights: Path) -> None:
    for path in lpips_weights.iterdir():
        (layout.WEIGHTS / path.name).write_bytes(path.read_bytes())
    main()
    means = of_scene()
    assert 0 < means["lpips_aligned"] < means["lpips"]
    assert means["lpips_note"] is None
    assert "lpips alex 889a9ed0" in means["protocol"]


def test_pictures_by_a_fixer_that_learnt_from_the_scene_are_not_measured(scene: Scene) -> None:
    params = json.loads(Path("params.yaml").read_text())
    study = small_study(methods=("none", "base-post"), fixers=("base",)).model_dump()
    Path("params.yaml").write_text(json.dumps(params | {"study": study}))
    lesson = {"scene": "elsewhere", "group": "PAIR-15", "photographs": []}
    record = layout.fixed_views(SCENE, "base") / "taught.json"
    write_json(record, {"scenes": [lesson], "unknown": []})
    with pytest.raises(UserError, match="this fixer learnt from pair15"):
        main()
    assert not layout.scene_metrics(SCENE, "none").exists()
