"""Stage `report`: what is not there is left out, and what is too large is refused."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exact_scene import SCENE
from PIL import Image
from ruamel.yaml import YAML
from studied import DOWNSTREAM, INTERNAL, METHODS, write_studied

from stages import compare, decide
from stages.pages.report import both
from stages.pages.report.readme_image import choose_view
from stages.pages.report.results import Results
from stages.quality.keys import NONE_MEAN
from stages.report import main, result_files
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import read_json, read_tsv, write_json, write_tsv
from stages.run.settings.params import Params
from stages.scenes.images import write_mask
from stages.scenes.scene import Scene
from stages.scenes.study.config import StudyConfig


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))


def reported(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", ["report"])
    main()
    return layout.report().read_text()


def test_plain_splat_alone_has_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch, ["none"])
    text = reported(monkeypatch)
    assert "nothing to compare" in text
    assert "Paired differences" not in text
    assert "Tuning: loss" not in text
    assert read_tsv(layout.gains()) == []


def test_without_lpips_its_reason_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch, lpips=False)
    text = reported(monkeypatch)
    assert "LPIPS is empty: &lt;no network&gt;" in text, "and text from files is escaped"
    assert "<dt>Missing</dt><dd>LPIPS was not measured: &lt;no network&gt;</dd>" in text
    assert 'class="difference"' in text


def test_results_below_the_mean_colour_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    assert "is below that of an image" not in reported(monkeypatch)
    path = layout.scene_metrics(DOWNSTREAM[0], "none")
    write_json(path, read_json(path) | {"psnr": 8.0, "mean_color_psnr": 9.5})
    low = {"psnr": 8.25, "mean_color_psnr": 9.5}
    write_json(layout.METRICS / "captures" / "lab" / "combined.json", {"eval": low})
    text = reported(monkeypatch)
    assert f"{DOWNSTREAM[0]} by none: PSNR 8.00 dB is below that of an image" in text
    assert "captures/lab/combined eval: PSNR 8.25 dB is below that of an image" in text


def test_costs_are_of_this_study_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    assert "No stage has run in this working copy" in reported(monkeypatch)
    spent = {"seconds": 12.5, "peak_memory_gib": 1.5, "device": "H1"}
    spent |= {"gpu_seconds": 25.0, "gpu_peak_memory_gib": 2.0}
    write_json(Path(f"work/cost/train/{DOWNSTREAM[0]}.json"), spent)
    write_json(Path("work/cost/train/pose2sim_4cam.json"), spent | {"seconds": 99.0})
    text = reported(monkeypatch)
    assert ">12.5<" in text
    assert ">25.0<" in text
    assert "99.0" not in text


def test_results_of_other_workflows_join_when_they_are_there(monkeypatch) -> None:
    write_studied(monkeypatch)
    assert 'id="captures"' not in reported(monkeypatch)
    write_json(layout.METRICS / "captures" / "lab" / "combined.json", {"eval": {"psnr": 23.25}})
    text = reported(monkeypatch)
    assert 'id="captures"' in text
    assert 'id="table-captures-whole"' in text
    assert "combined eval" in text
    assert "23.25" in text


def test_links_lead_to_what_show_made(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    folder = layout.shown(DOWNSTREAM[0])
    folder.mkdir(parents=True)
    for name in ("viewer.html", "side_by_side.mp4", "none_000021.ply"):
        (folder / name).touch()
    text = reported(monkeypatch)
    for name in ("viewer.html", "side_by_side.mp4", "none_000021.ply"):
        assert f'href="scenes/{DOWNSTREAM[0]}/{name}"' in text
    assert DOWNSTREAM[1] + "/viewer.html" not in text


def test_plots_of_dvc_have_a_row_and_a_strip_a_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    reported(monkeypatch)
    rows = read_tsv(layout.gains())
    wanted = {(scene, method) for scene in DOWNSTREAM for method in METHODS[1:]}
    assert {(row["scene"], row["method"]) for row in rows} == wanted
    assert float(rows[0]["psnr"]) < 0 < float(rows[-1]["psnr"]), "base is noisier, tuned is not"
    assert sorted(path.stem for path in layout.strips().iterdir()) == sorted(
        ["hi4d_pair02_dance", *DOWNSTREAM]
    )


def test_page_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["report"]["max_mb"] = 0.01
    yaml.dump(params, Path("params.yaml"))
    with pytest.raises(UserError, match=r"expected at most 0.01 MB"):
        reported(monkeypatch)
    assert not layout.report().exists()


def test_texts_load_no_image_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    address = "http://example.org/seen.png"
    params["study"]["objective"] = f'<img src="{address}"> and ![seen]({address})'
    yaml.dump(params, Path("params.yaml"))
    monkeypatch.setattr(sys, "argv", ["decide"])
    decide.main()
    text = reported(monkeypatch)
    assert address in text
    assert re.findall(r"<img[^>]*http", text) == []


def test_headline_has_people_the_mean_of_seeds_and_the_noise(monkeypatch) -> None:
    write_studied(monkeypatch)
    subject = METHODS[-1]
    assert "none-mean" not in reported(monkeypatch)
    write_json(
        layout.summary(), (means := read_json(layout.summary())) | {NONE_MEAN: means["none"]}
    )
    averages = {scene: read_json(layout.scene_metrics(scene, "none")) for scene in DOWNSTREAM}
    write_json(layout.averaged()[0], {name: row | {"psnr": 29.5} for name, row in averages.items()})
    floor = {"trainings": 3, "confidence": 0.95, "crop_psnr_least": 0.5, "ssim_least": 9.0}
    floor |= {"psnr_least": 0.1, "lpips_least": 0.001}
    delta = read_json(layout.delta()) | {"noise_floor": floor}
    headline = delta["headline"]
    words = {"psnr_is": "gain", "ssim_is": "below the noise floor", "lpips_is": "gain"}
    crops = {"crop_psnr_is": "below the noise floor", "crop_psnr_scenes_improved": 2}
    crops |= {"crop_psnr_t_low": 0.28, "crop_psnr_t_high": 0.47}
    of_none = headline[f"{subject}_vs_none"]
    for of in of_none.values():
        of["crop_psnr"] = 0.375
    of_none["mean"] |= words | crops
    averaged = of_none | {"mean": of_none["mean"] | {"psnr": -0.75, "psnr_is": "loss"}}
    headline[f"{subject}_vs_{NONE_MEAN}"] = averaged
    write_json(layout.delta(), delta)
    text = reported(monkeypatch)
    versus = f'<span class="method">{subject}</span> at strength 1 against <span class="method">'
    assert versus + "none-mean" in text
    assert re.search(r"Against none: gain in PSNR \(.*\) and LPIPS .*: below the noise floor", text)
    assert "Against none-mean: loss in PSNR (-0.75 dB)" in text
    assert "people: +0.38 (+0.28 to +0.47): below the noise floor" in text
    assert text.count('<span class="verdict">loss</span>') == 1
    assert "renders over 3 trainings" in text
    assert ">29.50<" in text, "of every scene"


def test_verdict_is_that_of_the_decision_at_the_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    delta, subject = read_json(layout.delta()), METHODS[-1]
    delta["frontier"]["strengths"][subject] = delta["study"]["strength"] = 0.5
    differences = delta["headline"][f"{subject}_vs_none"]
    differences["mean"] |= {"psnr": 0.1234, "psnr_is": "the interval includes zero"}
    delta["headline"][f"{subject}_vs_base-post"] = differences
    write_json(layout.delta(), delta)
    monkeypatch.setattr(sys, "argv", ["decide"])
    decide.main()
    text = reported(monkeypatch)
    lead = text.partition('<div class="lead">')[2].partition("</div>")[0]
    said = [line for line in layout.decision().read_text().splitlines() if line[:9] == "- Against"]
    plain = re.sub(r"<[^>]+>", "", lead)
    assert len(said) == 4, "two at the strength, two over all strengths"
    assert all(line.removeprefix("- ").replace("**", "") in plain for line in said[:2])
    cards = text.partition('<div class="cards">')[2].partition("</article>")[0]
    assert "+0.12" in cards
    assert "no difference shown" in cards
    assert "the interval includes zero" in cards
    assert text.count('<div class="cards">') == 1, "equal comparisons are shown once"
    assert 'the differences are those against <span class="method">none' in text
    assert 'id="table-full-strength"' in text
    assert "+3.39" in text.partition('id="table-full-strength"')[2].partition("</table>")[0]


def test_frontier_is_drawn_where_it_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    layout.frontier_table().unlink()
    assert "Strength of the fixer" not in reported(monkeypatch)
    rows = [
        {"scene": "mean", "method": METHODS[-1], "strength": share, "psnr": 20 + share}
        | {"ssim": 0.5 + share / 10, "lpips": 0.2 - share / 10}
        for share in (0.0, 0.5, 1.0)
    ]
    write_tsv(layout.frontier_table(), rows, list(rows[0]))
    found = {"strengths": {METHODS[-1]: 0.5}, f"{METHODS[-1]}_vs_none": {"verdict": "trades"}}
    write_json(layout.delta(), read_json(layout.delta()) | {"frontier": found})
    text = reported(monkeypatch)
    assert "Strength of the fixer" in text
    assert text.count('class="point ') == 6, "three strengths over PSNR and over SSIM"
    assert text.count('class="ring ') == 2, "at the chosen strength"
    assert f"<title>{METHODS[-1]}, strength 0.5</title>" in text
    assert "<strong>trades</strong> with" in text
    assert f" of {METHODS[-1]}; highest PSNR on 1 internal-eval scene, {INTERNAL}" in text


def test_views_are_ranked_by_the_method_of_the_headline(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["study"]["subject"] = "none"
    yaml.dump(params, Path("params.yaml"))
    text = reported(monkeypatch)
    assert 'best view of <span class="method">none</span>' in text
    assert "by gain over the plain splat" not in text


def test_brief_page_is_small_complete_and_the_same_everywhere(monkeypatch) -> None:
    write_studied(monkeypatch)
    folder = layout.shown(DOWNSTREAM[0])
    folder.mkdir(parents=True)
    (folder / "viewer.html").touch()
    whole = reported(monkeypatch)
    text = layout.brief_report().read_text()
    assert len(text.encode()) < 1_500_000
    assert whole.count('<article class="view"') > text.count('<article class="view"') == 3
    assert re.findall(r'(?:src|href)="(?!data:|#)', text) == [], "a clone has no other file of it"
    for name in ("table-methods-whole", "table-deltas-whole", "table-scenes"):
        assert f'id="{name}"' in text
    spent = {"seconds": 12.5, "peak_memory_gib": 1.5, "device": "H1"}
    write_json(Path(f"work/cost/train/{DOWNSTREAM[0]}.json"), spent)
    subprocess.run(["git", "init", "--quiet"], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    commit = ["commit", "--quiet", "--allow-empty", "--message", "another revision"]
    subprocess.run(["git", *identity, *commit], check=True)
    assert "another revision" in reported(monkeypatch)
    assert layout.brief_report().read_text() == text


def test_brief_page_keeps_its_size_whatever_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    reported(monkeypatch)
    view = re.compile(r'<img class="picture" src="([^"]*)"')
    images = [len(one) for one in view.findall(layout.brief_report().read_text())]
    assert len(images) == 3 * (1 + len(METHODS))
    monkeypatch.setattr(both, "_BRIEF_BYTES", sum(images) - 1)
    reported(monkeypatch)
    assert len(view.findall(layout.brief_report().read_text())) == 2 * (1 + len(METHODS))


def test_readme_shows_the_view_that_the_plain_splat_renders_best(monkeypatch) -> None:
    """Among the views that show their people whole; what the fixer gains does not count."""
    write_studied(monkeypatch)
    _measure("none", {("000021", "28"): 20.0, ("000021", "64"): 29.0, ("000033", "28"): 24.0})
    _measure("tuned-post", {("000021", "28"): 40.0})
    results = Results.read(Params.read().section("study", StudyConfig), result_files())
    without = choose_view(results, {name: _plain(name) for name in DOWNSTREAM})
    assert (without.view.timestamp, without.view.name) == ("000021", "64"), "all views count"
    assert not without.whole
    assert without.enlarged is None
    scene = _masked({("000021", "28"): 5, ("000021", "64"): 0, ("000033", "28"): 5})
    scenes = {name: scene if name == DOWNSTREAM[0] else _plain(name) for name in DOWNSTREAM}
    chosen = choose_view(results, scenes)
    assert (chosen.scene, chosen.view.timestamp, chosen.view.name) == (SCENE, "000033", "28")
    assert chosen.whole
    assert len(chosen.rivals) == 2
    rows, columns = chosen.enlarged
    assert rows.stop - rows.start == columns.stop - columns.start == 32


def test_readme_image_has_a_column_per_method(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    _masked({("000021", "28"): 5})
    reported(monkeypatch)
    with Image.open(layout.readme_image()) as image:
        assert image.width == 4 * 320 + 3 * 8, "truth, none, base-post, tuned-post"
        assert image.height > 2 * 320


def test_readme_image_of_the_plain_splat_alone_has_two_columns(monkeypatch) -> None:
    write_studied(monkeypatch, ["none"], lpips=False)
    reported(monkeypatch)
    with Image.open(layout.readme_image()) as image:
        assert image.width == 2 * 320 + 8


def _plain(name: str) -> Scene:
    return Scene.read(layout.scene(name))


def _masked(margins: dict[tuple[str, str], int]) -> Scene:
    """The first downstream scene with masks of its people, so many pixels off the borders."""
    scene = _plain(DOWNSTREAM[0])
    for view in scene.views("target"):
        if (view.timestamp, view.name) in margins:
            mask = np.zeros((view.camera.height, view.camera.width), bool)
            edge = margins[view.timestamp, view.name]
            mask[edge:30, 15:25] = True
            folder = layout.scene(DOWNSTREAM[0]) / "frames" / view.timestamp / "masks"
            write_mask(folder / view.image_path.name, mask)
    return _plain(DOWNSTREAM[0])


def _measure(method: str, psnrs: dict[tuple[str, str], float]) -> None:
    path = layout.view_metrics(DOWNSTREAM[0], method)
    rows = read_tsv(path)
    for row in rows:
        row["psnr"] = psnrs.get((row["timestamp"], row["camera"]), 10.0)
    write_tsv(path, rows, list(rows[0]))


def test_further_lpips_nets_stand_in_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    assert "LPIPS (vgg)" not in reported(monkeypatch)
    left_out = {"lpips_squeeze_note": "<no network>"}
    for scene in (INTERNAL, *DOWNSTREAM):
        for method in METHODS:
            path, table = layout.scene_metrics(scene, method), layout.view_metrics(scene, method)
            means, rows = read_json(path), read_tsv(table)
            write_json(path, means | {"lpips_vgg": 2 * means["lpips"]} | left_out)
            rows = [row | {"lpips_vgg": 2 * float(row["lpips"])} for row in rows]
            write_tsv(table, rows, list(rows[0]))
    for stage in (compare, decide):
        monkeypatch.setattr(sys, "argv", [stage.__name__])
        stage.main()
    text = reported(monkeypatch)
    for name in ("methods-whole", "deltas-whole", "scenes"):
        start = text.index(f'id="table-{name}"')
        titles = text[start : text.index("</thead>", start)]
        assert re.search(r">LPIPS<.*>LPIPS \(vgg\)<", titles, re.DOTALL), name
    assert "LPIPS (vgg): less is better" in text
    assert "LPIPS (squeeze) is left out: &lt;no network&gt;" in text
    assert "LPIPS is empty" not in text
    vgg = read_json(layout.summary())["none"]["lpips_vgg"]
    assert f">{vgg:.4f}<" in text
