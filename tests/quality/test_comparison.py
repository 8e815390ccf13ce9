"""Methods side by side: lists decide what counts, and only equals are compared."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stages.quality.comparison import (
    Evaluations,
    downstream,
    plain_below_floor,
    summary,
)
from stages.quality.config import CompareConfig
from stages.quality.frontier import Frontiers
from stages.quality.headline import Headline
from stages.quality.keys import AVERAGED, MEASURED
from stages.quality.paired_differences import COLUMNS, comparisons_of, delta_metrics, delta_table
from stages.quality.table import comparison_text
from stages.run import layout
from stages.run.errors import UserError, UserErrors
from stages.run.files import read_json, write_json, write_tsv

SCENES = ("dance", "fight", "jump")
CONFIG = CompareConfig(bootstrap_draws=200)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`write(scene, method, psnr, lpips=...)`: an evaluation of 2 cameras at 3 timestamps."""
    monkeypatch.chdir(tmp_path)

    def build(
        scene: str,
        method: str,
        psnr: float,
        lpips: float | None = 0.2,
        protocol: str = "one",
        cameras: tuple[str, ...] = ("28", "64"),
    ) -> None:
        rows = []
        for index, time in enumerate(("000021", "000027", "000033")):
            for camera in cameras:
                row = {"timestamp": time, "camera": camera} | dict.fromkeys(MEASURED)
                rows.append(row | {"psnr": psnr + index - 1, "ssim": 0.8, "lpips": lpips})
        means = dict.fromkeys(AVERAGED) | {"psnr": psnr, "ssim": 0.8, "lpips": lpips}
        means |= {"mean_color_psnr": 12.0, "views": len(rows), "protocol": protocol}
        write_json(layout.scene_metrics(scene, method), means | {"lpips_note": None})
        columns = ["timestamp", "camera", *MEASURED]
        write_tsv(layout.view_metrics(scene, method), rows, columns)

    return build


@pytest.fixture
def study(write: Callable) -> Callable[..., Evaluations]:
    """Three scenes by none, base-post and tuned-post, with gains 0.1, 0.2, 0.6 and -0.5 dB."""

    def build(methods: tuple[str, ...] = ("none", "base-post", "tuned-post")) -> Evaluations:
        for scene, level, gain in zip(SCENES, (20, 24, 28), (0.1, 0.2, 0.6), strict=True):
            write(scene, "none", level)
            write(scene, "base-post", level - 0.5, lpips=0.25)
            write(scene, "tuned-post", level + gain, lpips=0.15)
        return Evaluations.read(SCENES, methods, layout.evaluation)

    return build


def test_summary_means_over_the_given_scenes_only(study: Callable) -> None:
    found = summary(study(), SCENES[1:])
    assert list(found) == ["none", "base-post", "tuned-post"]
    assert found["none"]["psnr"] == 26.0
    assert found["tuned-post"]["psnr"] == pytest.approx(26.4)
    assert found["none"]["scenes"] == 2
    assert list(found["none"]) == [*AVERAGED, "scenes"]
    assert found["none"]["psnr_aligned"] is None


def headline(evaluations: Evaluations, subject: str, strength: float = 1.0) -> Headline:
    """Of curves whose PSNR rises evenly from 10 dB, and whose references stay as evaluated."""
    points = {}
    for scene in SCENES:
        for method in evaluations.methods:
            full = evaluations.of(scene, method).means
            half = dict(full) | {"psnr": (10 + full["psnr"]) / 2}
            points[scene, method] = [half | {"strength": 0.5}, full | {"strength": 1.0}]
    strengths = {subject: strength}
    return Headline(subject, evaluations, Frontiers(points), SCENES, strengths)


def test_headline_is_of_the_subject_at_its_strength(study: Callable) -> None:
    found = headline(study(), "base-post").means()
    assert list(found) == [*SCENES, "mean"]
    assert found["fight"] == {"psnr": 23.5, "ssim": 0.8, "lpips": 0.25}
    assert found["mean"]["psnr"] == 23.5
    assert headline(study(), "base-post", 0.5).means()["fight"]["psnr"] == 16.75
    with pytest.raises(UserError, match=r"study\.subject: 'tuned-distill'"):
        headline(study(), "tuned-distill")


def test_differences_of_the_headline_are_those_of_its_means(study: Callable) -> None:
    evaluations = study()
    rows = headline(evaluations, "tuned-post").rows(CONFIG)
    whole = delta_table(evaluations, SCENES, CONFIG)
    compared = {row["comparison"] for row in rows}
    assert compared == {"tuned-post_vs_none", "tuned-post_vs_base-post"}
    floor = {"psnr_least": 0.5, "ssim_least": 0.1, "lpips_least": 0.01, "trainings": 2}
    found = delta_metrics(rows, SCENES, floor)
    assert found == {key: delta_metrics(whole, SCENES, floor)[key] for key in found}
    mean = found["tuned-post_vs_none"]["mean"]
    assert (mean["psnr_is"], mean["lpips_is"]) == ("below the noise floor", "gain")
    half = delta_metrics(headline(evaluations, "tuned-post", 0.5).rows(CONFIG), SCENES, floor)
    assert half["tuned-post_vs_none"]["fight"]["psnr"] == pytest.approx(17.1 - 24)


def test_every_missing_evaluation_is_listed(study: Callable) -> None:
    study()
    layout.scene_metrics("jump", "none").unlink()
    layout.view_metrics("dance", "base-post").unlink()
    with pytest.raises(UserError, match="2 of 6 evaluations are missing") as error:
        Evaluations.read(SCENES, ("none", "base-post"), layout.evaluation)
    assert error.value.got == "dance by base-post, jump by none"


def test_other_files_do_not_count(study: Callable, write: Callable) -> None:
    write("stale", "none", 99.0, protocol="another")
    assert study().scenes == SCENES


def test_unequal_protocols_are_refused_all_at_once(study: Callable, write: Callable) -> None:
    study()
    write("fight", "tuned-post", 25.0, protocol="two")
    write("jump", "base-post", 25.0, protocol="three")
    with pytest.raises(UserErrors) as error:
        Evaluations.read(SCENES, ("none", "base-post", "tuned-post"), layout.evaluation)
    assert len(error.value.errors) == 2
    assert "fight: none and tuned-post were not measured alike: 'one' and 'two'" in str(error.value)


def test_unequal_views_are_refused(study: Callable, write: Callable) -> None:
    study()
    write("dance", "base-post", 25.0, cameras=("28", "88"))
    with pytest.raises(UserError, match="only one has 000021/64, 000021/88"):
        Evaluations.read(SCENES, ("none", "base-post"), layout.evaluation)


@pytest.mark.parametrize("value", ["x", [], True])
def test_means_that_are_no_numbers_are_refused(study: Callable, value: object) -> None:
    study()
    path = layout.scene_metrics("fight", "none")
    write_json(path, read_json(path) | {"ssim": value})
    with pytest.raises(UserError, match=f"{path.name}: ssim: "):
        Evaluations.read(SCENES, ("none", "base-post"), layout.evaluation)


def test_mean_needs_every_scene(study: Callable, write: Callable) -> None:
    study()
    for method in ("none", "tuned-post"):
        write("fight", method, 24.0, lpips=None)
    evaluations = Evaluations.read(SCENES, ("none", "tuned-post"), layout.evaluation)
    assert summary(evaluations, SCENES)["none"]["lpips"] is None
    assert headline(evaluations, "none").means()["dance"]["lpips"] == 0.2
    table = delta_table(evaluations, SCENES, CONFIG)
    assert [row["scene"] for row in table if row["metric"] == "lpips"] == ["dance", "jump"]
    found = delta_metrics(table, SCENES, {})["tuned-post_vs_none"]
    assert found["mean"]["lpips"] is found["fight"]["lpips"] is None
    assert found["dance"]["lpips"] == pytest.approx(-0.05)


def test_deltas_pair_scenes_and_views(study: Callable) -> None:
    table = delta_table(study(), SCENES, CONFIG)
    assert all(set(row) == set(COLUMNS) for row in table)
    rows = {(row["comparison"], row["scene"], row["metric"]): row for row in table}
    mean = rows["tuned-post_vs_none", "mean", "psnr"]
    assert mean["difference"] == pytest.approx(0.3)
    # t(0.975, 2) = 4.302653 by a standard deviation of 0.264575 over sqrt(3).
    assert mean["low"] == pytest.approx(0.3 - 4.302653 * 0.264575 / 3**0.5, abs=1e-5)
    assert mean["high"] == pytest.approx(0.6 - mean["low"], abs=1e-5)
    assert (mean["won"], mean["sign_flip_p"]) == (3, 0.25)
    assert rows["base-post_vs_none", "mean", "psnr"]["won"] == 0
    assert rows["tuned-post_vs_none", "mean", "lpips"]["won"] == 3
    # Ties: no scene improved, no view lost.
    assert rows["tuned-post_vs_none", "mean", "ssim"]["won"] == 0
    assert rows["tuned-post_vs_none", "fight", "ssim"]["won"] == 0.5
    fight = rows["tuned-post_vs_none", "fight", "psnr"]
    # Every view gains the same, although views differ by 2 dB among themselves.
    assert fight["difference"] == fight["low"] == fight["high"] == 0.2
    assert fight["won"] == 1.0
    assert "this scene" in fight["interval"]


def test_views_are_neighbours_in_time_whatever_their_order_in_the_file(write: Callable) -> None:
    """Blocks of neighbours: the interval of a trend is wide, that of the same values mixed not."""
    tables = []
    for step in (1, 5):
        for method, slope in (("none", 0.0), ("base-post", 0.1)):
            write("fight", method, 24.0)
            columns = ["timestamp", "camera", *MEASURED]
            rows = [
                {"timestamp": f"{step * k % 24:06d}", "camera": camera}
                | dict.fromkeys(MEASURED)
                | {"psnr": 24 + slope * (step * k % 24)}
                for k in range(24)
                for camera in ("64", "28")
            ]
            write_tsv(layout.view_metrics("fight", method), rows, columns)
        evaluations = Evaluations.read(("fight",), ("none", "base-post"), layout.evaluation)
        config = CompareConfig(bootstrap_draws=200, block_length=6)
        tables.append(delta_table(evaluations, ("fight",), config))
    assert tables[0] == tables[1]
    row = tables[0][0]
    assert row["difference"] == pytest.approx(1.15)
    assert row["high"] - row["low"] > 0.5


def test_delta_metrics_are_few_and_name_the_pairs(study: Callable) -> None:
    found = delta_metrics(delta_table(study(), SCENES, CONFIG), SCENES, {})
    assert list(found) == ["base-post_vs_none", "tuned-post_vs_none", "tuned-post_vs_base-post"]
    pair = found["tuned-post_vs_base-post"]
    assert list(pair) == [*SCENES, "mean"]
    assert pair["fight"] == {"psnr": 0.7, "ssim": 0.0, "lpips": pytest.approx(-0.1)}
    assert pair["mean"]["psnr"] == pytest.approx(0.8)
    assert pair["mean"]["psnr_t_low"] < 0.8 < pair["mean"]["psnr_t_high"]
    assert (pair["mean"]["psnr_scenes_improved"], pair["mean"]["psnr_sign_flip_p"]) == (3, 0.25)


def test_one_scene_has_no_interval(study: Callable) -> None:
    rows = delta_table(study(), ("jump",), CONFIG)
    mean = next(row for row in rows if row["scene"] == "mean")
    assert mean["low"] is mean["high"] is None
    assert mean["sign_flip_p"] == 1.0


def test_one_method_has_no_delta(study: Callable) -> None:
    assert delta_table(study(("none",)), SCENES, CONFIG) == []
    assert delta_metrics([], SCENES, {}) == {}


def test_twins_are_of_one_kind() -> None:
    methods = ["none", "base-post", "base-distill", "tuned-distill"]
    assert comparisons_of(methods)[-1] == ("tuned-distill", "base-distill")
    assert ("tuned-distill", "base-post") not in comparisons_of(methods)
    assert comparisons_of(["base-post", "tuned-post"]) == [("tuned-post", "base-post")]


def test_downstream_scenes_must_be_evaluated() -> None:
    assert downstream(["b", "c"], ["a", "b"]) == ["b"]
    with pytest.raises(UserError, match=r"none of them is in study\.evaluated_scenes"):
        downstream(["b"], ["a"])


def test_table_tells_means_and_differences(study: Callable) -> None:
    evaluations, scenes = study(), SCENES[1:]
    found = summary(evaluations, scenes)
    differences = delta_table(evaluations, scenes, CONFIG)
    text = comparison_text(evaluations, found, differences, scenes, 0.95)
    assert "dance (not in the mean)" in text
    assert "tuned-post minus none" in text
    assert "PSNR dB    +0.40 [" in text
    assert "2 of 2 scenes improved (sign-flip p 0.5, least possible 0.5)" in text
    assert "mean colour: 12.00 dB" in text
    assert "worse than" not in text


def test_scenes_whose_plain_gaussians_are_below_the_mean_colour_are_told(
    study: Callable, write: Callable
) -> None:
    study()
    write(SCENES[0], "none", 11.5)
    write(SCENES[1], "tuned-post", 11.5)  # of others the evaluation itself warns
    methods = ("none", "tuned-post")
    evaluations = Evaluations.read(SCENES, methods, layout.evaluation)
    assert plain_below_floor(evaluations, SCENES) == [SCENES[0]]
    found = summary(evaluations, SCENES)
    text = comparison_text(evaluations, found, [], SCENES, 0.95)
    assert f"WARNING: The plain Gaussians of {SCENES[0]} are worse than" in text
    fixed_only = Evaluations.read(SCENES, ("tuned-post",), layout.evaluation)
    assert plain_below_floor(fixed_only, SCENES) == []
