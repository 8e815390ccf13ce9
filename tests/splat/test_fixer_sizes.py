"""benchmarks/fixer_sizes.py, on a workspace of two known scenes that the stages made samples of."""

import shutil
import sys
from pathlib import Path

import pytest
from known_scene import SCENE, TIMES
from small_study import TEST, TUNING

from benchmarks import fixer_quality, fixer_sizes, fixer_views
from stages import manifest, pairs
from stages.difix.applied import AppliedFixer
from stages.difix.config import FixerConfig
from stages.graph.pipeline import set_params
from stages.quality.evaluation import Meter
from stages.run import layout
from stages.run.artefacts import GAUSSIANS, LEARNT_CAMERAS
from stages.run.errors import UserError
from stages.run.files import file_hash, read_json, write_json
from stages.run.settings.params import Params
from stages.scenes.colmap import write_model
from stages.scenes.images import read_image, write_png
from stages.scenes.scene import Scene
from stages.splat.gaussians import Gaussians

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SETTINGS = ["difix.multiple=8", "tune.multiple=8", "tune.steps=2", "tune.warmup_steps=0"]
SETTINGS += ["tune.validate_every=2", "runtime.tune.loader_workers=0"]


def write_workspace(
    scene: Scene, truth: Gaussians, monkeypatch: pytest.MonkeyPatch
) -> tuple[Meter, Path]:
    """A tuning and an internal-eval scene, their samples, the shipped fixer; meter and fixer."""
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    roles = {"tuning_scenes": TUNING, "internal_eval_scenes": TEST}
    set_params(
        Path(), ["pairs.steps=[]", *(f"study.{key}=[{name}]" for key, name in roles.items())]
    )
    views = scene.views("source", TIMES[0])
    for time in TIMES:
        truth.save(layout.splats(SCENE) / time / GAUSSIANS)
        cameras = {f"{view.name}.png": view.camera for view in views}
        write_model(layout.splats(SCENE) / time / LEARNT_CAMERAS, cameras)
    for name, split in ((TUNING, "train"), (TEST, "test")):
        for kind in (layout.scene, layout.calibrated, layout.splats):
            shutil.copytree(kind(SCENE), kind(name))
        info = read_json(layout.scene(name) / "scene.json")
        write_json(layout.scene(name) / "scene.json", info | {"name": name, "group": name[5:11]})
        for path in layout.scene(name).rglob("*.png") if name == TUNING else ():
            write_png(path, 1 - read_image(path))
        monkeypatch.setattr(sys, "argv", ["pairs", "--scene", name, "--split", split])
        pairs.main()
    for kind in (layout.scene, layout.calibrated, layout.splats):
        shutil.rmtree(kind(SCENE))  # its images are those of the internal-eval scene
    monkeypatch.setattr(sys, "argv", ["manifest"])
    manifest.main()
    meter, _ = fixer_quality.prepared(Path("made"))
    Path("made/weights").rename(layout.WEIGHTS)
    return meter, Path("made/base").rename(layout.base())


def contents() -> dict[Path, str]:
    """Hashes of the workspace's results and params."""
    files = [*Path("data").rglob("*"), *Path("metrics").rglob("*"), Path("params.yaml")]
    return {path: file_hash(path) for path in files if path.is_file()}


@pytest.mark.slow
def test_every_way_is_measured_and_the_workspace_stays(
    scene, truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    meter, base = write_workspace(scene, truth, monkeypatch)
    before = contents()
    words = ["--workspace", ".", "--resolution", "40", "--crop", "32", "--seeds", "0", "1"]
    words += ["--set", *SETTINGS, "--out", "rows.json"]
    monkeypatch.setattr(sys, "argv", ["fixer_sizes", *words])
    fixer_sizes.main()
    assert contents() == before
    out, messages = capfd.readouterr()
    assert messages.count("processed at 40x40 (resolution 40") == 2
    written = read_json(tmp_path / "rows.json")
    rows = {(row["tuned"], row["applied"]): row for row in written["rows"]}
    whole, crops, full = "whole, 40 px", "crops, 32 px", "whole at full size"
    expected = {("no fixer", "")}
    expected |= {(name, full) for name in ("untuned", whole, crops)}
    expected |= {
        (name, f"{to} 40 px") for name in ("untuned", whole) for to in ("resized to", "tiles of")
    }
    expected |= {(crops, "tiles of 32 px")}
    assert rows.keys() == expected
    assert {row["views"] for row in rows.values()} == {len(TIMES)}
    assert (written["size"], written["scenes"]) == ("48x48", [TEST])
    # Their photographs are renders of the very Gaussians, so a fixer can only lose.
    plain = rows.pop(("no fixer", ""))
    assert plain["psnr"] > 50
    assert all(row["psnr"] < plain["psnr"] - 3 for row in rows.values())
    assert len({row["psnr"] for row in rows.values()}) == len(rows)
    for (name, _), row in rows.items():
        assert row["seconds"] > 0
        assert len(row["by_seed"]) == (1 if name == "untuned" else 2)
        assert (row["psnr_deviation"] or 0) > 0 or name == "untuned"
    applied = Params.read().section("difix", FixerConfig).model_copy(update={"multiple": 8})
    fixer = AppliedFixer.read(base, applied)
    psnr = [
        meter.measure(view)["psnr"]
        for one in fixer_views.targets_of(TEST, Path("data"), fixer.fix, fixer.rule)
        for view in one.measured(one.fixed(fixer.fix, one.warp))
    ]
    assert rows["untuned", full]["psnr"] == pytest.approx(sum(psnr) / len(psnr), abs=1e-3)
    assert (
        sum(line.startswith(("untuned ", "whole, ", "crops, ")) for line in out.splitlines()) == 8
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--set", "tune.steps=2", "train.max_steps=3"],
            "--set: train.max_steps=3: a workspace has its results already; leave --workspace out",
        ),
        (
            ["--set", "nosuch=1"],
            "--set: nosuch=1: a workspace has its results already; leave --workspace out",
        ),
        (
            ["--set", "tune.nosuch=1"],
            "--set: tune.nosuch=1: Invalid `--set-param` value: Could not override 'tune.nosuch'.",
        ),
        (
            ["--workspace", "empty"],
            "--workspace {cwd}/empty: no params.yaml in it; run `dvc repro manifest base weights` "
            "there",
        ),
    ],
)
def test_arguments_that_fit_no_workspace_end_with_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in fixer_sizes._LINKED:
        (tmp_path / name).mkdir(parents=True)
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fixer_sizes", "--workspace", ".", *words])
    with pytest.raises(UserError) as refused:
        fixer_sizes.main()
    assert str(refused.value) == said.format(cwd=tmp_path)


@pytest.mark.parametrize("name", ["fixer_sizes", "fixer_sizes_half"])
def test_tables_have_the_figures_that_were_measured(name: str) -> None:
    page, written = (
        (ROOT / "benchmarks" / "README.md").read_text(),
        read_json(RESULTS / f"{name}.json"),
    )
    for row in written["rows"]:
        sd = "" if row["psnr_deviation"] is None else f" ± {row['psnr_deviation']:.3f}"
        figures = f"{row['psnr']:.3f}{sd} | {row['ssim']:.4f} | {row['lpips']:.4f} |"
        assert f"| {row['tuned']} | {row['applied']} | {figures}" in page
