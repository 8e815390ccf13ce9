"""The policies of references on a wall whose visible parts are known, the same in all places."""

from dataclasses import replace

import numpy as np
import pytest
from known_scene import opaque_surface, with_targets

from stages.quality.config import NovelViewsConfig
from stages.run import layout
from stages.run.artefacts import GAUSSIANS, LEARNT_CAMERAS
from stages.run.errors import UserError
from stages.scenes.cameras import Camera, look_at, rigid, rotation_from_vector
from stages.scenes.colmap import write_model
from stages.scenes.config import ReferenceRule
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.views.distill import TrainedTimestamp, fixed_views
from stages.splat.views.fixed_views import DistillRecipe, FixedViews
from stages.splat.views.novel_views import TargetRenderer
from stages.splat.views.references import best_references, fix_in_rounds, ranked_references

SIZE = 32


def camera(name: str, x: float, towards: float = 0.0) -> Camera:
    """At (x, 0, 0), looking along +z and `towards` along x; 4 from the wall it sees 4 of it."""
    K = np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
    eye = np.array([x, 0.0, 0.0])
    pose = look_at(eye, eye + np.array([towards, 0.0, 1.0]), [0, -1, 0])
    return Camera(name, K, pose, SIZE, SIZE)


@pytest.fixture(scope="module")
def wall() -> Gaussians:
    """An opaque wall at z = 4."""
    steps = np.arange(-4, 4, 0.05)
    means = np.stack([*np.meshgrid(steps, steps), np.full((160, 160), 4.0)], -1).reshape(-1, 3)
    return opaque_surface(means)


def black_images(wall: Gaussians, cameras: dict[str, Camera], policy: str) -> TrainedTimestamp:
    """The wall as a trained timestamp whose source images are black."""
    images = {name: np.zeros((SIZE, SIZE, 3), np.float32) for name in cameras}
    return TrainedTimestamp("scene", wall, cameras, images, rule=ReferenceRule(policy))


TARGET = camera("t", 0.0)
# The nearest one looks away; of the others, b sees 3 of 4 units of the target's wall and c 2.
SOURCES = {"a": camera("a", 0.1, towards=2.0), "c": camera("c", -2.0), "b": camera("b", 1.0)}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("nearest", ["a", "b", "c"]),
        ("overlap", ["b", "c", "a"]),
        ("source:c", ["c", "a", "b"]),
    ],
)
def test_policies_rank_the_sources(wall: Gaussians, policy: str, expected: list[str]) -> None:
    assert ranked_references(policy, [TARGET], SOURCES, wall, "cpu") == [expected]


def test_equal_overlap_goes_to_the_nearer_source(wall: Gaussians) -> None:
    behind = look_at(np.array([0.0, 0, -1]), np.array([0.0, 0, 1]), [0, -1, 0])
    sources = {"far": SOURCES["b"].moved(behind), "near": camera("near", 0.0)}
    assert ranked_references("overlap", [TARGET], sources, wall, "cpu") == [["near", "far"]]


def test_named_camera_must_be_a_source() -> None:
    with pytest.raises(UserError, match=r"(?s)reference_from.*source:t2.*a, b, c.*fix"):
        ranked_references("source:t2", [TARGET], SOURCES, None, "cpu")


def test_camera_that_was_left_out_is_not_its_own_reference() -> None:
    others = {name: SOURCES[name] for name in "ab"}
    assert ranked_references("source:c", [SOURCES["c"]], others, None, "cpu") == [["a", "b"]]


@pytest.mark.parametrize(
    ("policy", "expected"), [("nearest", "a"), ("overlap", "b"), ("source:c", "c")]
)
def test_distilled_views_have_the_policys_reference(
    wall: Gaussians, policy: str, expected: str
) -> None:
    timestamp = black_images(wall, SOURCES, policy)
    used = []

    def fix(renders, references):
        used.extend(references)
        return list(renders)

    fixed_views(wall, timestamp, [TARGET], fix, DistillConfig(), "cpu")
    assert len(used) == 1
    assert [len(some) for some in used] == [1]
    assert used[0][0] is timestamp.images[expected]


@pytest.mark.parametrize("policy", ["nearest", "overlap", "source:04"])
def test_post_has_the_policys_reference(scene: Scene, truth: Gaussians, policy: str) -> None:
    """Two sources look away: `nearest` takes one of them all the same, `overlap` neither."""
    calibration, time = read_calibration(layout.calibrated(scene.name)), scene.timestamps[0]
    back = rigid(rotation_from_vector([0, np.pi, 0]), np.zeros(3))
    sources = dict(calibration.sources)
    for name in ("02", "04"):
        sources[name] = sources[name].moved(back @ sources[name].cam_from_world)
    splat = layout.splats(scene.name) / time
    truth.save(splat / GAUSSIANS)
    learnt = {f"{name}.png": one for name, one in sources.items()}
    write_model(
        splat / LEARNT_CAMERAS, {name: replace(one, name=name) for name, one in learnt.items()}
    )
    used = []

    def fix(renders, references):
        used.extend(references)
        return list(renders)

    targets = TargetRenderer(scene, calibration, NovelViewsConfig(), "cpu")
    recipe = DistillRecipe(DistillConfig(), TrainConfig())
    views = scene.views("target", time)
    fixed = FixedViews(targets, layout.splats(scene.name), fix, recipe, ReferenceRule(policy))
    cameras = [calibration.targets[view.name] for view in views]
    fixed.fix_views(views, cameras, [view.pixels() for view in views])
    images = {view.name: view.pixels() for view in scene.views("source", time)}
    (chosen,) = [name for name, image in images.items() if np.array_equal(image, used[0][0])]
    assert len(used) == len(views) == 1
    assert {"nearest": "02", "source:04": "04"}.get(policy, chosen) == chosen
    assert policy != "overlap" or chosen not in ("02", "04")


ROW = {"a": camera("a", 0.0), "z": camera("z", 20.0)}


def test_previous_goes_from_the_sources_outwards() -> None:
    """Views at 3, 1 and 2 from a source are fixed as 1, 2, 3, each beside the one before."""
    views = [camera("far", 3.0), camera("near", 1.0), camera("middle", 2.0)]
    far, near, middle = ranked_references("previous", views, ROW, None, "cpu")
    assert (near[0], middle[0], far[0]) == ("a", 1, 2)
    assert far == [2, 1, "a", "z"]
    assert near == ["a", "z"], "no view that is fixed later"


def test_previous_prefers_a_source_that_is_as_near() -> None:
    sources = {"a": ROW["a"], "b": camera("b", 4.0, towards=1.0)}
    _, second = ranked_references(
        "previous", [camera("1", 1.0), camera("2", 2.5)], sources, None, "cpu"
    )
    assert second[:2] == ["b", 0], "1.5 from both, and only the view looks the same way"


def test_fixed_views_become_references_of_later_ones() -> None:
    views = [camera("far", 3.0), camera("near", 1.0), camera("middle", 2.0), camera("other", 19.0)]
    renders = [np.full((2, 2, 3), number, np.float32) for number in range(4)]
    images = {"a": np.full((2, 2, 3), 10, np.float32), "z": np.full((2, 2, 3), 20, np.float32)}
    calls = []

    def fix(some, references):
        calls.append(
            [
                (float(one.mean()), float(ref.mean()))
                for one, (ref,) in zip(some, references, strict=True)
            ]
        )
        return [one + 100 for one in some]

    ranked = ranked_references("previous", views, ROW, None, "cpu")
    chosen = best_references(ranked, ReferenceRule("previous"))
    fixed = fix_in_rounds(renders, chosen, images.__getitem__, fix)
    assert [float(one.mean()) for one in fixed] == [100, 101, 102, 103]
    assert calls == [[(1, 10), (3, 20)], [(2, 101)], [(0, 102)]]


def test_first_of_the_ranked_sources_are_taken() -> None:
    ranked = ranked_references("nearest", [TARGET], SOURCES, None, "cpu")
    assert best_references(ranked, ReferenceRule("nearest", 2)) == [["a", "b"]]
    with pytest.raises(UserError, match=r"(?s)difix\.references.*4.*at most 3"):
        best_references(ranked, ReferenceRule("nearest", 4))


@pytest.mark.parametrize(("policy", "expected"), [("nearest", 0.0), ("previous", 0.75)])
def test_distilled_views_have_those_of_the_round_before(
    wall: Gaussians, policy: str, expected: float
) -> None:
    timestamp = black_images(wall, ROW, policy)
    used = []

    def fix(renders, references):
        used.append(float(references[0][0].mean()))
        return [np.full_like(one, 0.75) for one in renders]

    config = DistillConfig()
    before = fixed_views(wall, timestamp, [camera("t", 1.0)], fix, config, "cpu")
    fixed_views(wall, timestamp, [camera("t", 1.9)], fix, config, "cpu", before)
    assert used == [0.0, expected]


def test_each_kind_of_render_has_fixed_views_of_its_own_kind(
    scene: Scene, truth: Gaussians
) -> None:
    """Of three targets side by side the middle one is fixed last, beside an outer one."""
    scene, time = with_targets(scene, ("02", "03", "04"), truth), scene.timestamps[0]
    calibration = read_calibration(layout.calibrated(scene.name))
    splat = layout.splats(scene.name) / time
    truth.save(splat / GAUSSIANS)
    learnt = {f"{name}.png": one for name, one in calibration.sources.items()}
    write_model(
        splat / LEARNT_CAMERAS, {name: replace(one, name=name) for name, one in learnt.items()}
    )
    calls = []

    def fix(renders, references):
        calls.append([some[0] for some in references])
        return [one + 100 for one in renders]

    targets = TargetRenderer(scene, calibration, NovelViewsConfig(), "cpu")
    recipe = DistillRecipe(DistillConfig(), TrainConfig())
    fixed = FixedViews(targets, layout.splats(scene.name), fix, recipe, ReferenceRule("previous"))
    views = [view for view in scene.views("target", time) for _ in ("given", "aligned")]
    renders = [np.full((2, 2, 3), number, np.float32) for number in range(6)]
    cameras = [calibration.targets[view.name] for view in views]
    images = fixed.fix_views(views, cameras, renders)
    assert [len(one) for one in calls] == [4, 2], "the outer targets of both kinds, then the middle"
    photographs = [view.pixels() for view in scene.views("source", time)]
    assert all(any(np.array_equal(ref, one) for one in photographs) for ref in calls[0])
    given, aligned = calls[1]
    assert any(given is images[index] for index in (0, 4))
    assert any(aligned is images[index] for index in (1, 5))


def test_fewer_references_than_asked_for_will_do_where_they_are_warped() -> None:
    ranked = [["a", "b"], ["b"]]
    assert best_references(ranked, ReferenceRule(count=2, warped=True)) == ranked
    assert best_references(ranked, ReferenceRule(count=1, warped=True)) == [["a"], ["b"]]


def test_distilled_views_have_references_warped_into_them(wall: Gaussians) -> None:
    """Of the wall, b sees the part of the target from x = -1 on: its image is white."""
    images = {name: np.ones((SIZE, SIZE, 3), np.float32) for name in SOURCES}
    valid = {"c": np.zeros((SIZE, SIZE), bool)}
    rule = ReferenceRule("overlap", 4, warped=True)
    timestamp = TrainedTimestamp("scene", wall, SOURCES, images, valid, rule)
    used = []

    def fix(renders, references):
        used.extend(references)
        return list(renders)

    fixed_views(wall, timestamp, [TARGET], fix, DistillConfig(), "cpu")
    (beside,) = used
    assert [one.shape for one in beside] == [(SIZE, SIZE, 4)] * 3
    b, c, a = beside
    columns = np.arange(SIZE) + 0.5
    x = (columns - SIZE / 2) / SIZE * 4
    assert (b[8, x > -0.9] > 0.9).all()
    assert (b[8, x < -1.1] == 0).all()
    assert not c.any(), "no pixel of it counts"
    assert not a.any(), "it looks away"


@pytest.mark.parametrize("aligned", [False, True])
def test_post_warps_into_the_camera_of_the_render(
    scene: Scene, truth: Gaussians, aligned: bool
) -> None:
    """Where all is exact, a warped image equals the render wherever the depths agree."""
    calibration, time = read_calibration(layout.calibrated(scene.name)), scene.timestamps[0]
    splat = layout.splats(scene.name) / time
    truth.save(splat / GAUSSIANS)
    learnt = {f"{name}.png": one for name, one in calibration.sources.items()}
    write_model(
        splat / LEARNT_CAMERAS, {name: replace(one, name=name) for name, one in learnt.items()}
    )
    used = []

    def fix(renders, references):
        used.extend(references)
        return list(renders)

    targets = TargetRenderer(scene, calibration, NovelViewsConfig(), "cpu")
    recipe = DistillRecipe(DistillConfig(), TrainConfig())
    rule = ReferenceRule(count=2, warped=True)
    (view,) = scene.views("target", time)
    one = calibration.targets[view.name]
    if aligned:
        one = one.moved(rigid(rotation_from_vector([0, 0.2, 0]), np.zeros(3)) @ one.cam_from_world)
    fixed = FixedViews(targets, layout.splats(scene.name), fix, recipe, rule)
    picture = render(truth, one, "cpu").rgb.numpy()
    fixed.fix_views([view], [one], [picture])
    (beside,) = used
    assert len(beside) == 2
    for warped in beside:
        trusted = warped[..., 3] > 0.9
        assert trusted.mean() > 0.02
        assert np.median(np.abs(warped[..., :3] - picture)[trusted]) < 0.05
