"""Stage `compare`: three files and a table from evaluations that lists in params choose."""

import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from studied import write_strengths

from stages.compare import main
from stages.difix.network.training_record import TUNING_FILE
from stages.quality.keys import AVERAGED, CROPPED, MEASURED, MEASURES, repeat_name
from stages.quality.measured import measured_rows
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import read_json, read_tsv, write_json, write_tsv
from stages.run.methods import FIXERS, methods_of

ROOT = Path(__file__).resolve().parents[1]
LEVELS = {"pair02": 30.0, "pair15": 20.0, "pair16": 22.0}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's own params with three scenes, of which two are downstream."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare"])
    select(["none", "base-post"], "none")
    for scene, level in LEVELS.items():
        evaluation(scene, "none", level)
        evaluation(scene, "base-post", level + 0.5)
    return tmp_path


def repeat_with(seeds: list[int]) -> None:
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["study"]["seeds"] = seeds
    yaml.dump(params, Path("params.yaml"))


def select(methods: list[str], subject: str) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["study"]["evaluated_scenes"] = list(LEVELS)
    params["study"]["downstream_scenes"] = ["pair15", "pair16", "pair17"]
    params["study"]["internal_eval_scenes"] = ["pair02"]
    params["study"]["methods"] = methods
    params["study"]["fixers"] = [one for one in FIXERS if methods_of(one, tuple(methods))]
    params["study"]["subject"] = subject
    params["study"]["seeds"] = []
    yaml.dump(params, Path("params.yaml"))


def average(means: dict[str, float], protocol: str = "one") -> None:
    """The files of stage `average`: PSNR by scene."""
    of_scenes, rows = {}, []
    for scene, psnr in means.items():
        of_scenes[scene] = measured(psnr, protocol)
        row = {"scene": scene, "timestamp": "000021", "camera": "28"}
        rows.append(row | {key: of_scenes[scene][key] for key in MEASURED})
    files = layout.averaged()
    write_json(files[0], of_scenes)
    write_tsv(files[1], rows, ["scene", "timestamp", "camera", *MEASURED])


def measured(psnr: float, protocol: str) -> dict[str, Any]:
    numbers = {"psnr": psnr, "ssim": 0.8, "lpips": None, "mean_color_psnr": 12.0}
    means = dict.fromkeys(AVERAGED) | numbers
    return means | {"views": 1, "protocol": protocol, "lpips_note": "no network"}


def evaluation(
    scene: str, method: str, psnr: float, protocol: str = "one", people: float | None = None
) -> None:
    """PSNR of whole images, and of the people where it is measured."""
    means = measured(psnr, protocol)
    if people is not None:
        means |= {"crop_psnr": people, "crop_ssim": 0.6}
    row = {"timestamp": "000021", "camera": "28"} | {key: means[key] for key in MEASURED}
    write_json(layout.scene_metrics(scene, method), means)
    write_tsv(layout.view_metrics(scene, method), [row], list(row))
    write_strengths(scene, method, means)


def test_writes_the_downstream_means_and_the_deltas(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    summary = read_json(layout.summary())
    assert (summary["none"]["psnr"], summary["base-post"]["psnr"]) == (21.0, 21.5)
    assert summary["none"]["scenes"] == 2
    assert summary["none"]["lpips"] is None
    assert set(read_json(layout.subject())) == {"pair15", "pair16", "mean"}
    assert read_json(layout.delta())["base-post_vs_none"]["mean"]["psnr"] == 0.5
    rows = read_tsv(layout.delta_table())
    assert [row["scene"] for row in rows[:3]] == ["pair15", "pair16", "mean"]
    assert float(rows[2]["difference"]) == 0.5
    output = capsys.readouterr().out
    assert "pair02 (not in the mean)" in output
    assert "base-post minus none" in output


def test_subject_is_that_of_the_study_whatever_the_scenes_say() -> None:
    """Another method is better on every scene, so that a choice by results would take it."""
    select(["none", "tuned-post", "tuned-distill"], "tuned-post")
    for scene, level in LEVELS.items():
        evaluation(scene, "tuned-post", level - 1.0)
        evaluation(scene, "tuned-distill", level + 1.0)
    main()
    delta = read_json(layout.delta())
    assert delta["study"]["subject"] == "tuned-post"
    assert list(delta["headline"]) == ["tuned-post_vs_none"]
    assert len(delta["study"]["verdict"]) == 64


def test_headline_is_a_few_numbers_of_the_subject_and_the_plain_splat() -> None:
    """The subject at its strength: half of the way from 20 dB."""
    select(["none", "base-post", "tuned-post", "tuned-distill"], "tuned-post")
    for scene, level in LEVELS.items():
        evaluation(scene, "base-post", level + 0.5)
        evaluation(scene, "tuned-post", level + 0.5)
        evaluation(scene, "tuned-distill", level + 2)
    rows = read_tsv(layout.frontier("pair02", "tuned-post"))
    rows[1]["psnr"] = "40.0"
    write_tsv(layout.frontier("pair02", "tuned-post"), rows, list(rows[0]))
    main()
    headline = read_json(layout.headline())
    assert (headline["psnr"], headline["psnr_none"]) == (20.75, 21.0)
    assert set(headline) == {name + whose for name in MEASURES for whose in ("", "_none")}
    assert all(isinstance(value, float) or value is None for value in headline.values())


def test_headline_of_the_plain_splat_is_that_splat() -> None:
    """With the same keys as any other, so that experiments differ in values alone."""
    select(["none", "base-post"], "none")
    main()
    headline = read_json(layout.headline())
    assert headline["psnr"] == headline["psnr_none"] == 21.0


def test_subject_chooses_the_headline() -> None:
    select(["none", "base-post"], "base-post")
    main()
    assert read_json(layout.headline())["psnr"] == 21.5


def test_what_was_measured_is_kept_with_the_differences() -> None:
    select(["none", "tuned-post"], "tuned-post")
    protocol = "940x1280, 1 views 42fdda3f, lpips vgg 889a9ed0, masks ignore"
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    entry = dict(params["scenes"]["hi4d_pair15_fight"])
    params["scenes"] |= {"hi4d_pair15": entry | {"source": "hi4d"}, "lab": entry}
    params["base"]["source"] = "nvidia/difix_ref"
    params["difix"]["resolution"] = 576
    params["study"]["downstream_scenes"] = ["hi4d_pair15"]
    params["study"]["evaluated_scenes"] = ["pair02", "hi4d_pair15"]
    yaml.dump(params, Path("params.yaml"))
    for scene in ("pair02", "hi4d_pair15"):
        for method in ("none", "tuned-post"):
            evaluation(scene, method, 20.0, protocol)
    losses = {"l2": 1.0, "lpips": 0.0, "gram": 0.0, "net": None}
    tuning = {"train_pairs": 24, "steps": 100, "parameters": 949_000_000, "losses": losses}
    tuning["losses_note"] = "no weights of vgg: no network; L2 alone is left"
    views = layout.fixed_views("hi4d_pair15", "tuned")
    write_json(views / TUNING_FILE, tuning | {"worked_on": "whole images of 940x1280 px"})
    main()
    found = dict(measured_rows(read_json(layout.delta())))
    assert found["Data"] == "Hi4D, 940x1280 px"
    assert "1 downstream scene," in found["Sample"]
    assert "n = 1 view;" in found["Sample"]
    assert found["Fixer"].startswith("nvidia/difix_ref, 949 M parameters")
    assert found["Tuning"].endswith("on whole images of 940x1280 px; loss 1 L2"), "not 0.1 LPIPS"
    assert found["Missing"] == (
        "no weights of vgg: no network; L2 alone is left. Other losses than `tune.losses` tuned "
        "the fixer: its numbers do not compare with those of a run that has the weights; LPIPS "
        "was not measured, for the same reason"
    )
    assert found["Resolution of use"] == "whole images, shorter side 576 px"
    assert found["LPIPS net"] == "vgg 889a9ed0"
    assert "not measured" in found["Noise floor"]
    (views / TUNING_FILE).unlink()
    main()
    assert dict(measured_rows(read_json(layout.delta())))["Tuning"] == "not recorded"


def test_headline_is_of_the_strength_that_the_internal_eval_scene_chooses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The downstream scenes have no part in it: there full strength is best."""
    select(["none", "tuned-post"], "tuned-post")
    for scene, level in LEVELS.items():
        evaluation(scene, "tuned-post", level + 1)
    rows = read_tsv(layout.frontier("pair02", "tuned-post"))
    rows[1]["psnr"] = "40.0"
    write_tsv(layout.frontier("pair02", "tuned-post"), rows, list(rows[0]))
    main()
    printed = capsys.readouterr().out
    assert "tuned-post at strength 0.5:\n- Against none: " in printed, "not full strength alone"
    assert printed.rstrip().endswith("- Noise floor: not measured: `study.seeds` is empty")
    frontier = read_json(layout.delta())["frontier"]
    assert frontier["strengths"] == {"tuned-post": 0.5}
    delta, subject = read_json(layout.delta()), read_json(layout.subject())
    assert (delta["study"]["subject"], delta["study"]["strength"]) == ("tuned-post", 0.5)
    assert delta["study"]["strength_chosen_on"] == "pair02"
    gain = subject["pair16"]["psnr"] - read_json(layout.scene_metrics("pair16", "none"))["psnr"]
    assert delta["headline"]["tuned-post_vs_none"]["pair16"]["psnr"] == gain == -0.5
    assert delta["tuned-post_vs_none"]["pair16"]["psnr"] == 1.0
    assert frontier["tuned-post_vs_none"] == {"verdict": "LPIPS was not measured"}
    half = {"pair15": 20.5, "pair16": 21.5}  # of 20 and 21, and of 20 and 23 dB
    assert {scene: subject[scene]["psnr"] for scene in half} == half
    assert read_json(layout.headline())["psnr"] == 21.0
    assert read_json(layout.summary())["tuned-post"]["psnr"] == 22.0
    table = read_tsv(layout.frontier_table())
    assert table[-1]["scene"] == "mean"
    assert float(table[-1]["psnr"]) == 22.0


def test_people_stand_beside_whole_images_at_the_strength_of_the_headline() -> None:
    """Half way from 20 dB; the plain splat and the untuned method are of their own strengths."""
    select(["none", "base-post", "tuned-post"], "tuned-post")
    for scene, level in LEVELS.items():
        evaluation(scene, "none", level, people=18.0)
        evaluation(scene, "base-post", level + 0.5, people=21.0)
        evaluation(scene, "tuned-post", level + 1, people=24.0)
    rows = read_tsv(layout.frontier("pair02", "tuned-post"))
    rows[1]["psnr"] = "40.0"
    write_tsv(layout.frontier("pair02", "tuned-post"), rows, list(rows[0]))
    main()
    subject, found = read_json(layout.subject()), read_json(layout.delta())["headline"]
    for scene in ("pair15", "pair16", "mean"):
        assert list(subject[scene]) == [*MEASURES, *CROPPED]
        assert subject[scene]["crop_psnr"] == 22.0
        assert found["tuned-post_vs_none"][scene]["crop_psnr"] == 4.0
        assert found["tuned-post_vs_base-post"][scene]["crop_psnr"] == 1.0
    assert found["tuned-post_vs_none"]["mean"]["crop_psnr_is"] == "difference"
    assert "crop_psnr" not in read_json(layout.delta())["tuned-post_vs_none"]["mean"]
    evaluation("pair16", "none", 22.0)
    for method in ("base-post", "tuned-post"):
        evaluation("pair16", method, 22.0)
    main()
    assert list(read_json(layout.subject())["mean"]) == list(MEASURES)
    mean = read_json(layout.delta())["headline"]["tuned-post_vs_none"]["mean"]
    assert "crop_psnr" not in mean, "a scene has no masks"


def test_strengths_without_columns_of_people_are_refused() -> None:
    rows = read_tsv(layout.frontier("pair15", "base-post"))
    write_tsv(layout.frontier("pair15", "base-post"), rows, ["strength", "views", *MEASURES])
    with pytest.raises(UserError, match=r"expected the columns .*crop_psnr"):
        main()


@pytest.mark.parametrize("broken", ["fewer", "repeated", "unordered", "none", "a gap"])
def test_broken_strengths_of_a_scene_are_refused(broken: str) -> None:
    path = layout.frontier("pair16", "base-post")
    rows = read_tsv(path)
    if broken == "fewer":
        del rows[1]
    elif broken == "repeated":
        rows[1]["strength"] = rows[0]["strength"]
    elif broken == "unordered":
        rows[0], rows[1] = rows[1], rows[0]
    elif broken == "none":
        rows[1]["strength"] = ""
    else:
        rows[1]["psnr"] = ""
    write_tsv(path, rows, list(rows[0]))
    expected = "an empty cell of psnr" if broken == "a gap" else "rising strengths"
    with pytest.raises(UserError, match=rf"pair16/base-post\.tsv(?s:.*){expected}"):
        main()
    assert not layout.summary().exists()


def test_strength_cannot_be_chosen_without_psnr_of_the_internal_scene() -> None:
    for method in ("none", "base-post"):
        means = measured(20.0, "one") | {"psnr": None}
        write_json(layout.scene_metrics("pair02", method), means)
        rows = [row | {"psnr": ""} for row in read_tsv(layout.frontier("pair02", method))]
        write_tsv(layout.frontier("pair02", method), rows, list(rows[0]))
    with pytest.raises(UserError, match="pair02 by base-post: no PSNR was measured"):
        main()
    assert not layout.summary().exists()


@pytest.mark.parametrize("broken", [20.0, None, {"psnr": 20.0}])
def test_broken_averages_are_refused(broken: Any) -> None:
    repeat_with([1])
    for scene, level in LEVELS.items():
        evaluation(repeat_name(scene, 1), "none", level)
    average({"pair15": 20.0, "pair16": 22.0})
    path = layout.averaged()[0]
    write_json(path, read_json(path) | {"pair16": broken})
    with pytest.raises(UserError, match=r"averages\.json  pair16: (got|no) "):
        main()
    assert not layout.summary().exists()


def test_strengths_of_another_evaluation_are_refused() -> None:
    rows = read_tsv(layout.frontier("pair15", "base-post"))
    rows[-1]["psnr"] = "7.0"
    write_tsv(layout.frontier("pair15", "base-post"), rows, list(rows[0]))
    with pytest.raises(UserError, match="in the last row"):
        main()
    assert not layout.summary().exists()


@pytest.mark.parametrize("seeds", [[], [1]])
def test_methods_without_the_plain_splat_have_no_noise_floor_and_no_reference(
    seeds: list[int],
) -> None:
    select(["base-post"], "base-post")
    repeat_with(seeds)
    for scene, level in LEVELS.items():
        evaluation(repeat_name(scene, 1), "none", level)
    expected = "no none" if seeds else "nothing that the subject base-post is compared with"
    with pytest.raises(UserError, match=expected):
        main()
    assert not layout.summary().exists()


def test_one_method_gives_an_empty_delta() -> None:
    select(["none"], "none")
    main()
    assert set(read_json(layout.delta())) == {"study"}
    assert read_tsv(layout.delta_table()) == []


def test_nothing_is_written_when_evaluations_are_missing_or_unequal() -> None:
    evaluation("pair16", "base-post", 22.0, protocol="two")
    with pytest.raises(UserError, match="pair16: none and base-post were not measured alike"):
        main()
    layout.scene_metrics("pair15", "base-post").unlink()
    with pytest.raises(UserError, match="1 of 6 evaluations are missing: pair15 by base-post"):
        main()
    assert not layout.summary().exists()


def test_repeats_give_a_noise_floor_and_change_nothing_else() -> None:
    main()
    before = read_json(layout.delta())
    repeat_with([1, 2])
    with pytest.raises(UserError, match=r"pair15\.seed1 by none[^`]*run `dvc repro repeat`"):
        main()
    for scene, level in LEVELS.items():
        for seed, moved in ((1, 0.3), (2, -0.3)):
            evaluation(repeat_name(scene, seed), "none", level + moved)
    average({})
    with pytest.raises(UserError, match=r"averages\.json: no pair15, pair16"):
        main()
    average({"pair15": 20.5, "pair16": 22.7})
    main()
    after = read_json(layout.delta())
    assert after["seed1_vs_none"]["mean"]["psnr"] == 0.3
    # Two scenes of variance 0.09, trained independently: t has 4 degrees of freedom.
    floor = {"psnr": 0.212132, "ssim": 0.0, "lpips": None, "trainings": 3}
    floor |= {"psnr_least": pytest.approx(2.776445 * 0.212132, abs=1e-6), "lpips_least": None}
    assert {key: after["noise_floor"][key] for key in floor} == floor
    assert after["none-mean_vs_none"]["mean"]["psnr"] == 0.6
    assert (
        read_json(layout.summary())["none-mean"] | {"psnr": 21.6, "scenes": 2}
        == (read_json(layout.summary())["none-mean"])
    )
    assert before["study"].pop("noise").startswith("not measured")
    assert (
        after["study"].pop("noise").startswith("0.59 dB PSNR, 0.0000 SSIM (95%, from 3 trainings")
    )
    mean = "base-post_vs_none", "mean"
    words = [of[mean[0]][mean[1]].pop("psnr_is") for of in (before, after)]
    assert words == ["difference", "below the noise floor"]
    added = {"noise_floor", "seed1_vs_none", "seed2_vs_none", "none-mean_vs_none"}
    assert {key: value for key, value in after.items() if key not in added} == before


def test_people_have_a_noise_floor_of_their_own() -> None:
    """A gain of 1 dB is more than the noise of whole images, and less than that of the people."""
    select(["none", "base-post"], "base-post")
    repeat_with([1, 2])
    for scene, level in LEVELS.items():
        evaluation(scene, "none", level, people=18.0)
        evaluation(scene, "base-post", level + 1, people=19.0)
        for seed, moved in ((1, 0.3), (2, -0.3)):
            evaluation(repeat_name(scene, seed), "none", level + moved, people=18 + 2 * moved)
    average({"pair15": 20.0, "pair16": 22.0})
    main()
    delta = read_json(layout.delta())
    floor = delta["noise_floor"]
    assert floor["crop_psnr_least"] == pytest.approx(2 * floor["psnr_least"], abs=1e-5)
    assert "0.59 dB PSNR, 0.0000 SSIM, 1.18 dB PSNR of people" in delta["study"]["noise"]
    mean = delta["headline"]["base-post_vs_none"]["mean"]
    assert (mean["psnr"], mean["psnr_is"]) == (1.0, "gain")
    assert (mean["crop_psnr"], mean["crop_psnr_is"]) == (1.0, "below the noise floor")


def test_mean_of_renders_that_was_measured_otherwise_is_refused() -> None:
    repeat_with([1])
    for scene, level in LEVELS.items():
        evaluation(repeat_name(scene, 1), "none", level)
    average({"pair15": 20.0, "pair16": 22.0}, protocol="other")
    with pytest.raises(UserError, match="none and none-mean were not measured alike"):
        main()


def test_repeat_that_was_measured_otherwise_is_refused() -> None:
    repeat_with([1])
    for scene, level in LEVELS.items():
        evaluation(repeat_name(scene, 1), "none", level, protocol="other")
    with pytest.raises(UserError, match="not measured alike"):
        main()
