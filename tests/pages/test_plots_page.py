"""The page of `dvc plots show`: it draws DVC's plots by itself and asks for nothing elsewhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browsing import Visitor
from playwright.sync_api import Page
from ruamel.yaml import YAML

from stages.run.files import write_tsv

ROOT = Path(__file__).resolve().parents[2]
DVC = [sys.executable, "-m", "dvc"]
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
PLOTS = [
    {"curve.tsv": {"template": "linear", "x": "step", "y": "loss", "title": "Loss"}},
    {"points.tsv": {"template": "scatter", "x": "camera", "y": "psnr", "title": "Points"}},
    {"bars.tsv": {"template": "bar_horizontal", "x": "gain", "y": "scene", "title": "Gains"}},
    {"both": {"x": "step", "y": {"curve.tsv": ["loss", "test"]}, "title": "Two curves"}},
    {"Counts": {"template": "confusion", "x": {"bars.tsv": "gain"}, "y": {"bars.tsv": "scene"}}},
]

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two revisions of three tables, plotted as this repository's dvc.yaml plots them."""
    folder = tmp_path_factory.mktemp("plotted")
    for command in (["git", "init", "--quiet"], [*DVC, "init", "--quiet"]):
        subprocess.run(command, cwd=folder, check=True)
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    YAML().dump({"plots": PLOTS}, folder / "dvc.yaml")
    for revision in (1, 2):
        # Two curves one after the other, as the timestamps of a scene; one value is missing.
        curve = [{"step": k, "loss": revision / (k + 1), "test": 1.0} for k in (0, 5, 9, 0, 5, 9)]
        write_tsv(
            folder / "curve.tsv", [*curve, {"step": 12, "loss": "", "test": 1}], list(curve[0])
        )
        points = [{"camera": name, "psnr": 20 + revision} for name in ("cam 28", "64")]
        write_tsv(folder / "points.tsv", points, list(points[0]))
        bars = [{"scene": f"<i>scene {k}</i>", "gain": k - 1.5} for k in range(4)]
        write_tsv(folder / "bars.tsv", bars, list(bars[0]))
        subprocess.run(["git", "add", "."], cwd=folder, check=True)
        subprocess.run([*GIT, "commit", "--quiet", "-m", "tables"], cwd=folder, check=True)
    return folder


def shown(repository: Path, visitor: Visitor, *words: str) -> Page:
    command = [*DVC, "plots", *words, "--out", "plots"]
    subprocess.run(command, cwd=repository, check=True, capture_output=True)
    return visitor.open(repository / "plots" / "index.html")


def figure(title: str) -> str:
    return f"figure:has(figcaption:text-is('{title}'))"


def test_every_plot_is_drawn_without_a_network(repository: Path, visitor: Visitor) -> None:
    page = shown(repository, visitor, "show")
    assert visitor.complaints == []
    assert all(url.startswith("file:") for url in visitor.requests)
    curve = figure("Loss")
    (path,) = (one.get_attribute("d") for one in page.query_selector_all(f"{curve} path"))
    assert path.count("M") == 2, "the second timestamp's curve begins anew"
    assert page.locator(f"{curve} circle").count() == 6, "a missing value has no point"
    assert page.locator(f"{figure('Points')} circle").count() == 2
    assert page.locator(f"{figure('Two curves')} path").count() == 2
    bars = figure("Gains")
    widths = [
        float(one.get_attribute("width"))
        for one in page.query_selector_all(f"{bars} rect:not(.frame)")
    ]
    assert widths == pytest.approx([3 * widths[1], widths[1], widths[1], 3 * widths[1]])
    names = page.locator(f"{bars} text[text-anchor=end]").all_text_contents()
    assert "<i>scene 0</i>" in names, "text stays text"
    assert "This page has no drawing for this template" in page.inner_text(figure("Counts"))


def test_higher_values_are_higher_and_ticks_say_which(repository: Path, visitor: Visitor) -> None:
    page = shown(repository, visitor, "show", "curve.tsv")
    curve = figure("Loss")
    tops = [float(one.get_attribute("cy")) for one in page.query_selector_all(f"{curve} circle")]
    assert tops[0] < tops[1] < tops[2], "loss falls, and y counts downwards"
    ticks = page.locator(f"{curve} text[text-anchor=end]").all_text_contents()
    assert [float(one) for one in ticks] == sorted(float(one) for one in ticks)


def test_revisions_have_their_own_colours_and_a_legend(repository: Path, visitor: Visitor) -> None:
    page = shown(repository, visitor, "diff", "HEAD~1", "HEAD", "--targets", "curve.tsv")
    curve = figure("Loss")
    colours = {one.get_attribute("stroke") for one in page.query_selector_all(f"{curve} path")}
    assert len(colours) == 2
    assert page.locator(f"{curve} .legend span").all_text_contents() == ["HEAD~1", "HEAD"]


def test_page_of_dvc_comes_back_when_ours_is_unset(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "clone")
    unset = [*DVC, "config", "--unset", "plots.html_template"]
    for command in (unset, [*DVC, "plots", "show", "--out", "plots"]):
        subprocess.run(command, cwd=tmp_path / "clone", check=True, capture_output=True)
    assert "/vega-embed@" in (tmp_path / "clone" / "plots" / "index.html").read_text()


def test_this_repositorys_templates_are_those_that_the_page_draws() -> None:
    dvc = YAML(typ="safe").load(ROOT / "dvc.yaml")
    of_stages = [plot for stage in dvc["stages"].values() for plot in stage.get("plots", [])]
    described = [
        one
        for plot in [*of_stages, *dvc["plots"]]
        if isinstance(plot, dict)
        for one in plot.values()
    ]
    templates = {one["template"] for one in described if one and "template" in one}
    assert templates == {"linear", "scatter", "bar_horizontal"}
