"""The viewer in a browser: it draws what our own renderer draws, and obeys."""

import io
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from browsing import Visitor
from exact_scene import EST_FROM_TRUE, SCENE, SIZE, TARGETS, TIMES, gaussians, write_scene
from PIL import Image
from playwright.sync_api import Page
from ruamel.yaml import YAML
from skimage.metrics import structural_similarity

from stages import show
from stages.commands import film
from stages.run import layout
from stages.splat.render import render

pytestmark = pytest.mark.xdist_group("browser")
ROOT = Path(__file__).resolve().parents[2]
SCALE = 5  # the canvas is so much larger than the photographs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The viewer of a small scene with two times and two methods, the second a shifted copy."""
    folder = tmp_path_factory.mktemp("shown")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_scene()
        for time in TIMES:
            truth = gaussians(time)
            truth.sh0.mul_(-1)
            place = layout.novel_views(SCENE, "tuned-distill") / "gaussians"
            truth.save(place / f"{time}.safetensors")
        yaml = YAML()
        params = yaml.load(ROOT / "params.yaml")
        params["study"]["methods"] = ["none", "tuned-post", "tuned-distill"]
        params["show"]["video"]["frames"] = 0
        yaml.dump(params, Path("params.yaml"))
        patch.setattr(sys, "argv", ["show", "--scene", SCENE])
        show.main()
    return folder / layout.shown(SCENE) / "viewer.html"


def picture(page: Page) -> np.ndarray:
    """What the canvas shows, [H, W, 3] in [0, 1]."""
    shot = Image.open(io.BytesIO(page.locator("#canvas").screenshot())).convert("RGB")
    return np.asarray(shot, np.float64) / 255


def wait(page: Page, method: str, time: str, camera: str) -> None:
    wanted = f"{method} {time} {camera}"
    page.wait_for_function(f"document.documentElement.dataset.shown === '{wanted}'")


@pytest.mark.parametrize("camera", TARGETS)
def test_camera_shows_what_our_renderer_draws(made: Path, visitor: Visitor, camera: str) -> None:
    viewport = {"width": SCALE * SIZE, "height": SCALE * SIZE}
    address = f"#method=none&time={TIMES[1]}&camera={camera}"
    page = visitor.open(made, address, viewport=viewport)
    wait(page, "none", TIMES[1], camera)
    page.uncheck("#beside")  # the canvas fills the window
    page.wait_for_function(f"document.getElementById('canvas').width === {SCALE * SIZE}")
    page.keyboard.press("h")  # the panel would cover the picture
    shown = Image.fromarray(np.rint(picture(page) * 255).astype(np.uint8)).resize((SIZE, SIZE))
    own = render(gaussians(TIMES[1]), EST_FROM_TRUE.apply_camera(TARGETS[camera]), "cpu").rgb
    assert np.asarray(shown).std() > 20, "not blank"
    alike = structural_similarity(
        np.asarray(shown) / 255, own.numpy().astype(float), channel_axis=2, data_range=1
    )
    assert alike > 0.9


def test_ground_truth_is_beside_the_render_at_its_scale(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made, "#camera=28", viewport={"width": 1000, "height": 400})
    wait(page, "none", TIMES[0], "28")
    page.wait_for_function("document.querySelector('#truth img').naturalWidth > 0")
    canvas, truth = (page.locator(name).bounding_box() for name in ("#canvas", "#truth img"))
    assert (canvas["width"], canvas["height"]) == pytest.approx(
        (truth["width"], truth["height"]), abs=1
    )
    assert truth["x"] == pytest.approx(canvas["x"] + canvas["width"], abs=1)
    source = page.locator("#truth img").get_attribute("src")
    assert page.locator("#truth figcaption").inner_text() == "ground truth, held out of training"
    page.keyboard.press("t")
    wait(page, "none", TIMES[1], "28")
    assert page.locator("#truth img").get_attribute("src") != source, "of the same timestamp"
    trained = page.locator("#camera optgroup").first
    assert trained.get_attribute("label") == "training"
    page.select_option("#camera", trained.locator("option").first.inner_text())
    assert page.locator("#truth figcaption").inner_text() == "ground truth, training"
    page.keyboard.press("g")
    assert not page.locator("#truth").is_visible()
    assert page.locator("#canvas").bounding_box()["width"] == 1000


def test_ground_truth_is_below_on_a_phone_and_nothing_scrolls(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made, "#camera=28", viewport={"width": 400, "height": 800})
    wait(page, "none", TIMES[0], "28")
    canvas, truth = (page.locator(name).bounding_box() for name in ("#canvas", "#truth"))
    assert canvas["y"] + canvas["height"] == pytest.approx(truth["y"], abs=1)
    panel = page.locator("#panel").bounding_box()
    assert panel["y"] + panel["height"] <= canvas["y"] + 1, "the panel hides nothing"
    assert truth["y"] + truth["height"] <= 801
    assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_first_view_is_free_and_held_out_cameras_are_marked(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made, viewport={"width": 600, "height": 400})
    wait(page, "none", TIMES[0], "")
    assert page.input_value("#camera") == ""
    assert not page.locator("#truth").is_visible()
    labels = page.eval_on_selector_all("#camera optgroup", "all => all.map(one => one.label)")
    assert labels == ["training", "held out of training"]
    assert page.locator(".legend li").all_inner_texts() == labels
    # Four edges from the apex and four of the frame; a held-out camera has a cross as well.
    counts = page.evaluate(
        "['source', 'target'].map(role => content.cameras.filter(one => one.role === role))"
        ".map(of => frustum(of[0]).length / 6)"
    )
    assert counts == [8, 10]


def test_method_and_time_change_the_picture(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made, "#camera=28", viewport={"width": 300, "height": 300})
    wait(page, "none", TIMES[0], "28")
    assert page.locator("#method option").all_inner_texts() == ["none", "tuned-distill"]
    first = picture(page)
    page.select_option("#method", "tuned-distill")
    wait(page, "tuned-distill", TIMES[0], "28")
    second = picture(page)
    page.locator("#time").focus()
    page.keyboard.press("ArrowRight")
    wait(page, "tuned-distill", TIMES[1], "28")
    third = picture(page)
    for one, other in ((first, second), (second, third)):
        assert np.abs(one - other).mean() > 0.02


def test_keys_and_pointer_turn_the_scene(made: Path, visitor: Visitor) -> None:
    page = visitor.open(made, viewport={"width": 600, "height": 400})
    wait(page, "none", TIMES[0], "")
    seen = [picture(page)]

    def after(act: Callable[[], None]) -> np.ndarray:
        drawn = int(page.evaluate("document.documentElement.dataset.drawn"))
        act()
        page.wait_for_function(f"Number(document.documentElement.dataset.drawn) > {drawn}")
        return picture(page)

    def drag() -> None:
        page.mouse.down()
        page.mouse.move(500, 230)
        page.mouse.up()

    page.mouse.move(450, 200)
    for act in (
        lambda: page.keyboard.press("ArrowLeft"),
        lambda: page.keyboard.press("+"),
        lambda: page.mouse.wheel(0, 300),
        drag,
        lambda: page.uncheck("#frusta"),
    ):
        seen.append(after(act))
    for one, other in itertools.pairwise(seen):
        assert np.abs(one - other).max() > 0.05


def test_film_shows_the_views_that_were_kept(
    made: Path, visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = SCALE * SIZE
    page = visitor.open(made, "#method=none", viewport={"width": side, "height": side})
    wait(page, "none", TIMES[0], "")
    drawn = int(page.evaluate("document.documentElement.dataset.drawn"))
    page.uncheck("#frusta")
    page.keyboard.press("h")
    page.wait_for_function(f"document.documentElement.dataset.drawn > {drawn}")
    first = picture(page)
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("k")
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == f"{SCENE}_path.json"
    download.value.save_as(tmp_path / "path.json")
    monkeypatch.chdir(made.parents[4])
    words = [SCENE, str(tmp_path / "path.json"), str(tmp_path / "film.mp4"), "--method", "none"]
    words += ["-S", "show.video.frames=3", "-S", f"show.video.max_side_px={side}"]
    monkeypatch.setattr(sys, "argv", ["film", *words])
    film.main()
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    width, height = next(frames)["size"]
    assert (width, height) == (side, side)
    shown = [np.frombuffer(frame, np.uint8).reshape(side, side, 3) / 255 for frame in frames]
    alike = [structural_similarity(first, one, channel_axis=2, data_range=1) for one in shown]
    assert alike[0] > 0.9
    assert alike[2] < alike[0] - 0.05, "the second view is another one"
