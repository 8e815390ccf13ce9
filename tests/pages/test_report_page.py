"""The report in a browser: sliders move, tables sort, dark follows light, a phone can read it."""

import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from browsing import Visitor
from playwright.sync_api import Page
from studied import DOWNSTREAM, INTERNAL, METHODS, write_studied

from stages import report
from stages.quality.keys import AVERAGED
from stages.run import layout
from stages.run.files import write_json

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small study."""
    folder = tmp_path_factory.mktemp("studied")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_studied(patch)
        _write_other_workflows()
        patch.setattr(sys, "argv", ["report"])
        report.main()
    return folder / "metrics" / "report" / "index.html"


def _write_other_workflows() -> None:
    """Numbers of a capture and a static scene, with long names and every kind of measure."""
    measures = dict.fromkeys(AVERAGED, 0.5) | {"psnr": 21.0, "mean_color_psnr": 12.0, "views": 3}
    long = {"protocol": "256x192, 8 views, lpips alex, masks covisible by depth within 5%"}
    capture, static = layout.METRICS / "captures" / "a_room_of_a_house", layout.METRICS / "static"
    for path in (
        capture / "combined_on_eval.json",
        capture / "tuned" / "combined_on_eval-post.json",
        static / "scenes" / "static_pair02_talk" / "lightfield.json",
        static / "scenes" / "static_pair15_fight" / "tuned" / "lightfield-post.json",
    ):
        write_json(path, measures | long)
    write_json(static / "table.json", {"lightfield": measures})
    write_json(static / "train" / "static_pair02_talk" / "lightfield.json", {"psnr": 30.0})


def color(page: Page, selector: str, name: str = "background-color") -> tuple[int, ...]:
    text = page.eval_on_selector(selector, f"one => getComputedStyle(one)['{name}']")
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def unfold(page: Page) -> None:
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")


def test_headline_tells_deltas_intervals_and_counts(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    first = page.locator(".card").first.inner_text()
    assert "PSNR" in first
    assert "t interval" in first
    assert "2/2 scenes" in first
    # This study has no other seeds, so nothing is called better.
    assert page.locator(".card.good").count() == 0
    assert "difference in PSNR" in page.locator(".lead").inner_text()


def test_nothing_in_the_page_has_an_outside_address(made: Path) -> None:
    text = made.read_text()
    assert re.findall(r"""(?:src|href)=["'](?:https?:)?//""", text) == []
    assert "url(http" not in text
    assert "@import" not in text


def test_slider_follows_the_keys_and_the_pointer(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    stage = page.locator(".stage").first
    slider = stage.locator("input")
    split = "one => one.style.getPropertyValue('--split')"
    before = stage.locator(".over").evaluate("one => getComputedStyle(one).clipPath")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert stage.evaluate(split) == "60%"
    assert stage.locator(".over").evaluate("one => getComputedStyle(one).clipPath") != before
    assert stage.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    box = stage.bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    assert abs(int(stage.evaluate(split).rstrip("%")) - 25) <= 3


def test_slider_shows_any_two_of_the_methods_and_the_truth(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    view = page.locator(".view").first
    assert view.locator(".tag.left").inner_text() == "none"
    assert view.locator(".tag.right").inner_text() == METHODS[-1]
    page.select_option("#left", "ground truth")
    page.select_option("#right", "base-post")
    source = "one => one.src"
    for side, method in ((".over", "ground truth"), (".under", "base-post")):
        wanted = view.locator(f"figure[data-method='{method}'] .picture").evaluate(source)
        assert view.locator(side).evaluate(source) == wanted
    page.wait_for_selector(".view[data-errors]")
    page.check("#errors")
    wanted = view.locator("figure[data-method='base-post'] .error").evaluate(source)
    assert view.locator(".under").evaluate(source) == wanted
    loaded = "one => one.complete && one.naturalWidth > 0"
    assert all(one.evaluate(loaded) for one in view.locator("img:visible").all())


def test_every_scene_has_its_worst_median_and_best_view(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    scenes = page.locator("details.scene > summary").all_inner_texts()
    assert scenes == [*DOWNSTREAM, INTERNAL], "those that answer the question come first"
    ranks = page.locator("details.scene").first.locator(".what b:visible").all_inner_texts()
    assert [one.lower() for one in ranks] == ["worst", "median", "best"]


def test_views_follow_the_chosen_methods(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    rows = json.loads(page.locator("#psnr").inner_text())[DOWNSTREAM[0]]
    shown = page.locator("details.scene").first.locator(".view:visible")

    def views(left: str, right: str) -> list[str]:
        page.select_option("#left", left)
        page.select_option("#right", right)
        return shown.evaluate_all("all => all.map(one => one.dataset.view)")

    for before, after in (
        ("none", "base-post"),
        ("base-post", "tuned-post"),
        ("tuned-post", "none"),
    ):
        gains = {row["view"]: row["psnr"][after] - row["psnr"][before] for row in rows}
        order = sorted(gains, key=lambda view: (gains[view], view))
        assert views(before, after) == [order[0], order[len(order) // 2], order[-1]]
        text = shown.first.locator(".what").inner_text()
        assert f"{gains[order[0]]:+.2f} dB".replace("-", "\N{MINUS SIGN}") in text
        assert (
            f"{after} in every scene, by gain over {before}"
            in page.locator("#ranking").inner_text()
        )
    assert views("none", "tuned-post") != views("none", "base-post")
    levels = {row["view"]: row["psnr"]["base-post"] for row in rows}
    assert views("ground truth", "base-post")[0] == min(levels, key=lambda view: levels[view])
    assert "base-post in every scene, by PSNR" in page.locator("#ranking").inner_text()


def test_errors_are_the_mean_differences_to_the_ground_truth(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    page.wait_for_selector(".view[data-errors]")
    pixels = """image => {
      const { naturalWidth: width, naturalHeight: height } = image;
      const canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      return [...context.getImageData(0, 0, width, height).data]; }"""
    view = page.locator(".view").first

    def levels(method: str, kind: str) -> np.ndarray:
        image = view.locator(f"figure[data-method='{method}'] .{kind}")
        return np.array(image.evaluate(pixels), float).reshape(-1, 4)[:, :3]

    truth, render = levels("ground truth", "picture"), levels("base-post", "picture")
    heat = [
        [0, 0, 4],
        [66, 10, 104],
        [147, 38, 103],
        [221, 81, 58],
        [252, 165, 10],
        [252, 255, 164],
    ]
    place = np.clip(np.abs(render - truth).mean(axis=1) / 255 / 0.25, 0, 1) * 5
    wanted = [np.interp(place, range(6), [stop[channel] for stop in heat]) for channel in range(3)]
    assert np.abs(levels("base-post", "error") - np.stack(wanted, axis=1)).max() <= 1
    assert place.std() > 0.1


def test_tables_sort_both_ways(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    page.locator("summary", has_text="evaluated scenes").click()
    column = "rows => rows.map(row => Number(row.cells[3].dataset.key))"
    numbers = lambda: page.eval_on_selector_all("#table-scenes tbody tr", column)  # noqa: E731
    head = page.locator("#table-scenes th").nth(3)
    head.locator("button").click()
    assert numbers() == sorted(numbers(), reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").press("Enter")
    assert numbers() == sorted(numbers())
    assert len(set(numbers())) > 3
    page.locator("#table-scenes th button").first.click()
    names = page.locator("#table-scenes tbody tr td:first-child").all_inner_texts()
    assert names == sorted(names)


@pytest.mark.parametrize(("scheme", "light"), [("light", True), ("dark", False)])
def test_dark_and_light(made: Path, visitor: Visitor, scheme: str, light: bool) -> None:
    page = visitor.open(made, color_scheme=scheme)
    assert (sum(color(page, "body")) > 380) is light
    assert (sum(color(page, "body", "color")) < 380) is light, "ink and paper differ"
    page.click("#theme")
    assert (sum(color(page, "body")) > 380) is not light
    page.reload()
    assert (sum(color(page, "body")) > 380) is not light, "the choice is remembered"


def test_phone_scrolls_down_only(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made, viewport={"width": 400, "height": 800})
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    small = "all => all.filter(one => parseFloat(getComputedStyle(one).fontSize) < 11).length"
    assert page.eval_on_selector_all("p, td, th, dd, dt, li, figcaption", small) == 0


def test_phone_shows_every_number_without_scrolling_sideways(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made, viewport={"width": 400, "height": 800})
    unfold(page)
    wide = "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
    assert page.eval_on_selector_all(".scroll", wide) == 0
    cell = page.locator("#table-methods-whole tbody td.number").first
    assert "PSNR" in cell.evaluate("one => getComputedStyle(one, '::before').content")
    box = cell.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 400


def test_images_enlarge_on_a_click_and_close_again(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    picture = page.locator(".strip .picture").first
    before = picture.bounding_box()["height"]
    picture.click()
    shown = page.locator("#large img")
    assert shown.bounding_box()["height"] > before
    assert shown.get_attribute("src") == picture.get_attribute("src")
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()
    picture.press("Enter")
    assert page.locator("#large").is_visible()


def test_first_screen_says_what_was_measured(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made, viewport={"width": 1400, "height": 900})
    facts = page.locator(".measured")
    assert facts.locator("dt").all_inner_texts() == [
        "Data",
        "Sample",
        "Fixer",
        "Tuning",
        "Resolution of use",
        "LPIPS net",
        "Poses",
        "Pixels",
        "Noise floor",
        "Strength",
    ]
    box = facts.bounding_box()
    assert box["y"] + box["height"] < 900
    assert "embedded demo: ray-traced people" in facts.inner_text()
    assert "not measured" in facts.inner_text()


def test_headings_are_in_order_and_images_have_texts(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    levels = page.eval_on_selector_all(
        "h1, h2, h3, h4, h5, h6", "all => all.map(one => Number(one.tagName[1]))"
    )
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.locator("img:visible:not([alt])").count() == 0
    assert page.locator("svg:not([aria-label])").count() == 0


def test_keyboard_reaches_everything_in_the_order_of_the_page(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    unfold(page)
    tops, kinds = [], set()
    for _ in range(400):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "(one => one === document.body ? null : [one.tagName, !!one.closest('main'), "
            "one.getBoundingClientRect().top + scrollY, getComputedStyle(one).outlineStyle])"
            "(document.activeElement)"
        )
        if found is None:
            break
        kinds.add(found[0])
        if found[1] and found[0] == "SUMMARY":
            tops.append(found[2])
    assert {"A", "BUTTON", "SELECT", "INPUT", "SUMMARY", "IMG"} <= kinds
    assert tops == sorted(tops)


def test_every_chart_names_its_axes(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made)
    names = page.eval_on_selector_all(
        ".chart svg", "all => all.map(one => one.querySelectorAll('text.name').length)"
    )
    assert names
    assert min(names) >= 1
    titles = page.locator("#curves .chart svg text.name").all_text_contents()
    assert {"step", "loss"} <= set(titles)


def test_print_leaves_out_what_paper_cannot_do(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made, color_scheme="dark")
    page.emulate_media(media="print")
    assert not page.locator(".toolbar").is_visible()
    assert not page.locator(".stage").first.is_visible()
    assert page.locator(".strip .picture").first.is_visible()
    assert color(page, "body") == (255, 255, 255)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 without its margins
    assert page.locator("#table-scenes thead").is_visible(), "tables stay tables"
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.locator("details:not([open])").count() == 0
