"""Stage `report`: what is not there is left out, and what is too large is refused."""

import re
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from studied import DOWNSTREAM, INTERNAL, METHODS, write_studied

from stages import compare, decide
from stages.quality.keys import NONE_MEAN
from stages.report import main
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import read_json, read_tsv, write_json, write_tsv


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
    rows = read_tsv(layout.delta_table())
    for reference, metric, difference in (
        (NONE_MEAN, "psnr", -0.75),
        ("none", "crop_psnr", 0.375),
    ):
        row = {"comparison": f"{subject}_vs_{reference}", "metric": metric, "interval": ""}
        row |= {"difference": difference, "low": difference - 0.1, "high": difference + 0.1}
        rows += [
            row | {"scene": name, "won": 1, "sign_flip_p": 1} for name in (*DOWNSTREAM, "mean")
        ]
    write_tsv(layout.delta_table(), rows, list(rows[0]))
    floor = {
        "trainings": 3,
        "confidence": 0.95,
        "psnr_least": 0.1,
        "crop_psnr_least": 0.5,
        "ssim_least": 9.0,
        "lpips_least": 0.001,
    }
    write_json(layout.delta(), read_json(layout.delta()) | {"noise_floor": floor})
    text = reported(monkeypatch)
    assert f'<span class="method">{subject}</span> against <span class="method">none-mean' in text
    assert "better in PSNR and LPIPS, below noise in SSIM" in text
    assert "people: +0.38 (+0.28 to +0.47): below noise" in text
    assert "PSNR of people, dB" in text
    assert "renders over 3 trainings" in text
    assert ">29.50<" in text, "of every scene"


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
    assert "<b>trades</b> against" in text
    assert f" of {METHODS[-1]}; highest PSNR on the internal-eval scenes: {INTERNAL}" in text


def test_views_are_ranked_by_the_method_of_the_headline(monkeypatch: pytest.MonkeyPatch) -> None:
    write_studied(monkeypatch)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["study"]["subject"] = "none"
    yaml.dump(params, Path("params.yaml"))
    text = reported(monkeypatch)
    assert 'best view of <span class="method">none</span>' in text
    assert "by gain over the plain splat" not in text


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
