"""Planted fixers through stages evaluate, average, compare and decide: what the decision says."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy.ndimage import gaussian_filter
from skimage import data

from stages import average, compare, decide, evaluate
from stages.quality.config import EvaluateConfig
from stages.quality.evaluation import Meter, columns_of, mean_color
from stages.quality.evaluation import evaluate as measure
from stages.quality.keys import MEASURES, repeat_name
from stages.run import layout
from stages.run.files import read_json, read_tsv, write_json, write_tsv
from stages.run.settings.params import Params
from stages.scenes.cameras import Camera, look_at
from stages.scenes.images import write_png
from stages.scenes.novel_views import novel_view_path, write_info
from stages.scenes.scene import Scene, write_scene
from stages.scenes.view import View
from stages.splat.views.measured_views import measured_views

ROOT = Path(__file__).resolve().parents[1]
INTERNAL, DOWNSTREAM = "pair02", ("pair15", "pair16", "pair17", "pair19")
SIZE = 64  # px
Image = np.ndarray
PLANTS: dict[str, Callable[[Image, Image, str], Image]] = {
    "sharpened a little": lambda raw, truth, scene: sharpened(raw, 0.5),
    "sharpened": lambda raw, truth, scene: sharpened(raw, 1.5),
    "sharpened much": lambda raw, truth, scene: sharpened(raw, 4.0),
    "blurred": lambda raw, truth, scene: gaussian_filter(raw, (1.2, 1.2, 0)),
    "another tone curve": lambda raw, truth, scene: raw**0.8,
    "real": lambda raw, truth, scene: raw + 0.5 * (truth - raw),
    "real in one scene": lambda raw, truth, scene: raw + 0.5 * (truth - raw) * (scene == "pair16"),
    "real and tiny": lambda raw, truth, scene: raw + 0.004 * (truth - raw),
}
# Each has the place of a method in one of two workspaces; `tuned-` ones are the subjects.
PLACES = ("tuned-post", "tuned-distill", "base-post", "base-distill")


def sharpened(image: Image, amount: float) -> Image:
    """By unsharp masking."""
    return image + amount * (image - gaussian_filter(image, (1, 1, 0)))


def render(truth: Image, seed: int, training: int) -> Image:
    """A render's kinds of error: blurred detail, moved edges, smooth spots; some by training."""
    spots = np.random.default_rng(seed).standard_normal(truth.shape)
    own = np.random.default_rng([seed, training]).standard_normal(truth.shape)
    blurred = gaussian_filter(np.roll(truth, 1, axis=seed % 2), (0.8, 0.8, 0))
    field = gaussian_filter(0.8 * spots + 0.03 * own, (4, 4, 0))
    return np.clip(blurred + field, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory: pytest.TempPathFactory, lpips_weights: Path) -> dict[str, Path]:
    """The folder of each plant, evaluated."""
    found = {}
    for first in range(0, len(PLANTS), len(PLACES)):
        names = list(PLANTS)[first : first + len(PLACES)]
        folder = tmp_path_factory.mktemp("planted")
        found |= dict.fromkeys(names, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("SPLATFIX_WORK", str(folder / "work"))
            write_study(dict(zip(names, PLACES, strict=True)), lpips_weights)
            for scene in (INTERNAL, *DOWNSTREAM):
                patch.setattr(sys, "argv", ["evaluate", "--scene", scene])
                evaluate.main()
            patch.setattr(sys, "argv", ["average"])
            average.main()
    return found


def write_study(places: dict[str, str], weights: Path, also: tuple[str, ...] = ()) -> None:
    """Params, scenes, renders of two trainings and the planted fixed views."""
    shutil.copytree(weights, layout.WEIGHTS)
    write_params("tuned-post", [1], methods=tuple(places.values()), also=also)
    picture = data.astronaut().astype(np.float32) / 255
    for seed, name in enumerate((INTERNAL, *DOWNSTREAM)):
        folder, views = layout.scene(name), []
        for role, camera in (("source", "4"), ("target", "28"), ("target", "64")):
            y, x = 40 * seed + 20 * len(views), 120 + 30 * seed
            K = np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
            pose = look_at([len(views), 0, -4], [0, 0, 0], [0, -1, 0])
            path = folder / "frames" / "000001" / "images" / f"{camera}.png"
            write_png(path, picture[y : y + SIZE, x : x + SIZE])
            view = View(Camera(camera, K, pose, SIZE, SIZE), path, timestamp="000001", role=role)
            views.append(view)
        write_scene(folder, {"name": name, "group": name}, views)
        scene = Scene.read(folder)
        for nth, view in enumerate(scene.views("target")):
            truth = view.pixels()
            raw = render(truth, 2 * seed + nth, 0)
            fixed = {method: PLANTS[plant](raw, truth, name) for plant, method in places.items()}
            for method, image in {"none": raw, **fixed}.items():
                put(layout.novel_views(name, method), view, image)
            other = render(truth, 2 * seed + nth, 1)
            put(layout.novel_views(repeat_name(name, 1), "none"), view, other)
        if name in DOWNSTREAM:
            measure_repeat(scene, repeat_name(name, 1))


def put(folder: Path, view: View, image: Image) -> None:
    write_png(novel_view_path(folder, "given", view), np.clip(image, 0, 1).astype(np.float32))
    write_info(folder, {"kinds": ["given"]})


def measure_repeat(scene: Scene, name: str) -> None:
    """What stage `repeat` does after its training."""
    meter = Meter.build(Params.read().section("evaluate", EvaluateConfig), layout.WEIGHTS)
    views = measured_views(scene, layout.novel_views(name, "none"), ("given",), "ignore")
    color = mean_color(view.valid_pixels() for view in scene.views("source"))
    rows, means = measure(views, meter, color, "auto", name=name)
    write_json(layout.scene_metrics(name, "none"), means)
    write_tsv(layout.view_metrics(name, "none"), rows, columns_of(rows))


def write_params(
    subject: str,
    seeds: list[int],
    downstream: tuple[str, ...] = DOWNSTREAM,
    methods: tuple[str, ...] = PLACES,
    also: tuple[str, ...] = (),
) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["study"] |= {
        "evaluated_scenes": [INTERNAL, *DOWNSTREAM],
        "internal_eval_scenes": [INTERNAL],
        "downstream_scenes": list(downstream),
        "methods": ["none", *methods],
        "subject": subject,
        "seeds": seeds,
    }
    params["evaluate"]["lpips"]["also"] = list(also)
    yaml.dump(params, Path("params.yaml"))


def decided(
    plant: str,
    workspaces: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    seeds: tuple[int, ...] = (1,),
    downstream: tuple[str, ...] = DOWNSTREAM,
) -> tuple[str, dict[str, Any]]:
    """decision.md, and delta.json, where the plant is the study's subject."""
    monkeypatch.chdir(workspaces[plant])
    names = [one for one, folder in workspaces.items() if folder == workspaces[plant]]
    subject = PLACES[names.index(plant)]
    write_params(subject, list(seeds), downstream)
    for stage in (compare, decide):
        monkeypatch.setattr(sys, "argv", [stage.__name__])
        stage.main()
    delta, text = read_json(layout.delta()), layout.decision().read_text()
    against = {"curves": delta["frontier"][f"{subject}_vs_none"]}
    against["mean"] = delta["headline"][f"{subject}_vs_none"]["mean"]
    against["strength"] = delta["study"]["strength"]
    return text.replace(subject, "SUBJECT"), against


def verdict_of(text: str) -> str:
    """The line against none on the first screen."""
    first = text.partition("## ")[0]
    return next(line for line in first.splitlines() if line.startswith("- Against none:"))


@pytest.mark.parametrize(
    ("plant", "strength", "found", "curves"),
    [
        ("sharpened a little", 0, "the same images", "trades"),
        ("sharpened", 0, "the same images", "trades"),
        ("sharpened much", 0, "the same images", "trades"),
        ("blurred", 1, "loss in SSIM (", "loses in part"),
        ("another tone curve", 0.125, "no difference shown in PSNR (", "loses in part"),
        ("real in one scene", 0, "the same images", "no difference shown"),
        ("real and tiny", 1, "no difference shown in PSNR (", "no difference shown"),
    ],
)
def test_what_is_no_gain_is_not_called_one(
    plant: str,
    strength: float,
    found: str,
    curves: str,
    workspaces: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, against = decided(plant, workspaces, monkeypatch)
    assert f"**SUBJECT at strength {strength:g}:**" in text
    assert against["strength"] == strength
    assert found in verdict_of(text)
    assert f"**{curves}**" in verdict_of(text)
    assert against["curves"]["verdict"] == curves
    assert "gain in" not in verdict_of(text)
    assert "gain" not in [against["mean"][f"{name}_is"] for name in MEASURES]


def test_real_gain_is_found(workspaces: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    text, against = decided("real", workspaces, monkeypatch)
    assert "gain in PSNR (+6.0" in verdict_of(text)
    assert "Over all strengths: SUBJECT **dominates** none." in verdict_of(text)
    assert against["curves"]["verdict"] == "dominates"
    assert [against["mean"][f"{name}_is"] for name in MEASURES] == ["gain"] * 3
    means = {row["scene"]: row for row in read_tsv(layout.frontier_table()) if row["scene"]}
    assert set(means) == {INTERNAL, *DOWNSTREAM, "mean"}
    headline = read_json(layout.headline())
    raised = headline["psnr"] - read_json(layout.summary())["none"]["psnr"]
    assert headline["psnr_none"] == read_json(layout.summary())["none"]["psnr"]
    assert against["mean"]["psnr"] == pytest.approx(raised, abs=2e-6)


STRONG = ("gain in", "loss in", "dominates", "dominated", "trades", "improves", "  gain", "  loss")


@pytest.mark.parametrize("plant", ["real", "sharpened much", "blurred"])
def test_without_a_noise_floor_the_strongest_word_is_difference(
    plant: str, workspaces: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, against = decided(plant, workspaces, monkeypatch, seeds=())
    assert "- Noise floor: not measured: `study.seeds` is empty\n" in text.partition("## ")[0]
    assert [word for word in STRONG if word in text.lower()] == []
    assert against["curves"]["verdict"] == "difference"
    said = {value for key, value in against["mean"].items() if key.endswith("_is")}
    assert said <= {"difference", "equal in every scene", "the interval includes zero"}
    study = read_json(layout.delta())["study"]
    assert study["noise"].startswith("not measured")


def test_one_scene_has_no_interval_and_no_verdict(
    workspaces: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, against = decided("real", workspaces, monkeypatch, downstream=("pair15",))
    assert "One scene has neither an interval nor a test" in text
    assert "**one scene has no interval**" in verdict_of(text)
    assert against["curves"]["verdict"] == "one scene has no interval"
    assert [word for word in STRONG if word in text.lower()] == []


def run_study(folder: Path, weights: Path, also: tuple[str, ...], patch: pytest.MonkeyPatch) -> str:
    """Evaluate and compare the study of a real gain below `folder`; return the decision."""
    folder.mkdir()
    patch.chdir(folder)
    patch.setenv("SPLATFIX_WORK", str(folder / "work"))
    write_study({"real": "tuned-post"}, weights, also)
    for scene in (INTERNAL, *DOWNSTREAM):
        patch.setattr(sys, "argv", ["evaluate", "--scene", scene])
        evaluate.main()
    for stage in (average, compare, decide):
        patch.setattr(sys, "argv", [stage.__name__])
        stage.main()
    return layout.decision().read_text()


def without_squeeze(value: Any) -> Any:
    """Numbers as they are without the further net."""
    if isinstance(value, dict):
        kept = {key: of for key, of in value.items() if "lpips_squeeze" not in key}
        return {key: without_squeeze(of) for key, of in kept.items()}
    if isinstance(value, list):
        rows = [row for row in value if "lpips_squeeze" not in str(row.get("metric"))]
        return [without_squeeze(row) for row in rows]
    text = r" \+ squeeze( [0-9a-f]{8})?|, [0-9.]+ LPIPS \(squeeze\)"
    return re.sub(text, "", value) if isinstance(value, str) else value


def test_a_further_net_stands_beside_the_first_in_every_output(
    tmp_path: Path, lpips_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = run_study(tmp_path / "one", lpips_weights, (), monkeypatch)
    text = run_study(tmp_path / "two", lpips_weights, ("squeeze",), monkeypatch)
    row = read_tsv(layout.view_metrics("pair15", "tuned-post"))[0]
    assert 0 < float(row["lpips_squeeze"]) != float(row["lpips"])
    summary, delta = read_json(layout.summary()), read_json(layout.delta())
    assert {"none", "tuned-post", "none-mean"} == summary.keys()
    assert all(means["lpips_squeeze"] > 0 for means in summary.values())
    for found in (delta["tuned-post_vs_none-mean"], delta["headline"]["tuned-post_vs_none"]):
        mean = found["mean"]
        assert (
            mean["lpips_squeeze_t_low"] < mean["lpips_squeeze"] < mean["lpips_squeeze_t_high"] < 0
        )
        assert (mean["lpips_squeeze_is"], mean["lpips_squeeze_scenes_improved"]) == ("gain", 4)
    assert delta["noise_floor"]["lpips_squeeze_least"] > 0
    assert read_json(layout.subject())["mean"]["lpips_squeeze"] < summary["none"]["lpips_squeeze"]
    assert "LPIPS (squeeze)" in verdict_of(text)
    assert usual.count("LPIPS (squeeze)") == 0
    titles = next(line for line in text.splitlines() if line.startswith("    method "))
    assert titles.endswith("LPIPS  LPIPS (squeeze)")
    for path in sorted(Path("metrics").rglob("*")):
        before = tmp_path / "one" / path
        if path.suffix == ".json":
            assert list(read_json(before)) == list(without_squeeze(read_json(path))), path
            assert read_json(before) == without_squeeze(read_json(path)), path
        elif path.suffix == ".tsv":
            assert read_tsv(before) == without_squeeze(read_tsv(path)), path
