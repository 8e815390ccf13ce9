"""Views of the report: which are chosen, and how errors are coloured."""

import base64
import io
from functools import partial

import numpy as np
import pytest
from exact_scene import SCENE
from PIL import Image
from studied import METHODS, write_studied

from stages.pages.config import ReportConfig
from stages.pages.report.results import Results
from stages.pages.report.views import TRUTH, error_map, ranked, report_views
from stages.report import result_files
from stages.run import layout
from stages.run.settings.params import Params
from stages.scenes.scene import Scene
from stages.scenes.study.config import StudyConfig


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("studied"))
        write_studied(patch)
        yield Results.read(Params.read().section("study", StudyConfig), result_files())


def test_views_are_ranked_by_what_the_subject_gains(results: Results) -> None:
    chosen = ranked(results, SCENE)
    assert [rank for rank, _, _ in chosen] == ["worst", "median", "best"]
    gains = [gain for _, _, gain in chosen]
    assert gains == sorted(gains)
    own = results.evaluations.of(SCENE, METHODS[-1]).views
    plain = results.evaluations.of(SCENE, "none").views
    every = [own[view]["psnr"] - plain[view]["psnr"] for view in own]
    assert (gains[0], gains[-1]) == (min(every), max(every))


def test_every_method_has_an_image_and_its_error(results: Results) -> None:
    scene = Scene.read(layout.scene(SCENE))
    renders = partial(layout.novel_views, SCENE)
    view = report_views(results, scene, renders, ReportConfig(max_side_px=32))[0]
    assert (view.width, view.height) == (32, 32)
    assert [one.method for one in view.images] == [TRUTH, *METHODS]
    assert not view.images[0].error
    sizes = set()
    for one in view.images[1:]:
        for url in (one.source, one.error):
            encoded = base64.b64decode(url.removeprefix("data:image/webp;base64,"))
            sizes.add(Image.open(io.BytesIO(encoded)).size)
    assert sizes == {(32, 32)}


def test_error_is_black_where_there_is_none_and_brighter_where_there_is_more() -> None:
    truth = np.zeros((1, 4, 3), np.float32)
    image = np.array([0, 0.05, 0.15, 0.9], np.float32)[None, :, None] + truth
    colors = error_map(image, truth, full_scale=0.25)
    assert colors[0, 0].tolist() == [0, 0, 4]
    assert colors[0, 3].tolist() == [252, 255, 164]
    assert (np.diff(colors[0].astype(int).sum(axis=1)) > 0).all()


def test_single_view_is_shown_once(results: Results, monkeypatch) -> None:
    of = results.evaluations.of
    one = next(iter(of(SCENE, "none").views))

    class Reduced:
        methods = results.evaluations.methods

        def of(self, scene: str, method: str) -> object:
            full = of(scene, method)
            return type("Only", (), {"views": {one: full.views[one]}})

    reduced = type("Results", (), {"ranked_by": results.ranked_by, "evaluations": Reduced()})
    assert [rank for rank, _, _ in ranked(reduced, SCENE)] == ["worst"]
