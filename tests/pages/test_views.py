"""Views of the report: which are chosen, and how errors are coloured."""

import base64
import io
from functools import partial

import pytest
from exact_scene import SCENE
from PIL import Image
from studied import METHODS, write_studied

from stages.pages.config import ReportConfig
from stages.pages.report.results import Results
from stages.pages.report.views import TRUTH, psnr_by_view, ranked, report_views
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


def test_every_method_has_an_image(results: Results) -> None:
    scene = Scene.read(layout.scene(SCENE))
    renders = partial(layout.novel_views, SCENE)
    view = report_views(results, scene, renders, ReportConfig(max_side_px=32))[0]
    assert (view.width, view.height) == (32, 32)
    assert [one.method for one in view.images] == [TRUTH, *METHODS]
    sizes = set()
    for one in view.images:
        encoded = base64.b64decode(one.source.removeprefix("data:image/webp;base64,"))
        sizes.add(Image.open(io.BytesIO(encoded)).size)
    assert sizes == {(32, 32)}


def test_page_holds_the_ranked_views_first_then_those_of_other_pairs(results: Results) -> None:
    scene = Scene.read(layout.scene(SCENE))
    renders = partial(layout.novel_views, SCENE)
    every = [(view.timestamp, view.name) for view in scene.views("target")]
    assert len(every) > 3
    for most in (1, 3, 100):
        views = report_views(results, scene, renders, ReportConfig(max_side_px=32, max_views=most))
        keys = [(view.timestamp, view.camera) for view in views]
        assert len(set(keys)) == len(keys) <= most
        assert [view.rank for view in views][:3] == ["worst", "median", "best"][:most]
        assert all(view.rank == "" for view in views[3:])


def test_page_ranks_by_the_psnr_of_every_view(results: Results) -> None:
    rows = psnr_by_view(results, SCENE)
    of = results.evaluations.of(SCENE, METHODS[0]).views
    assert {row["view"] for row in rows} == {"/".join(view) for view in of}
    assert all(set(row["psnr"]) == set(METHODS) for row in rows)


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
