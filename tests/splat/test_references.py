"""The policies of references on a wall whose visible parts are known, the same in all places."""

from dataclasses import replace

import numpy as np
import pytest
from known_scene import opaque_surface

from stages.quality.config import NovelViewsConfig
from stages.run import layout
from stages.run.artefacts import GAUSSIANS, LEARNT_CAMERAS
from stages.run.errors import UserError
from stages.scenes.cameras import Camera, look_at, rigid, rotation_from_vector
from stages.scenes.colmap import write_model
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.views.distill import TrainedTimestamp, fixed_views
from stages.splat.views.fixed_views import DistillRecipe, FixedViews
from stages.splat.views.novel_views import TargetRenderer
from stages.splat.views.references import ranked_references

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
    images = {name: np.zeros((SIZE, SIZE, 3), np.float32) for name in SOURCES}
    timestamp = TrainedTimestamp("scene", wall, SOURCES, images, policy=policy)
    used = []

    def fix(renders, references):
        used.extend(references)
        return list(renders)

    fixed_views(wall, timestamp, [TARGET], fix, DistillConfig(), "cpu")
    assert len(used) == 1
    assert used[0] is images[expected]


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
    fixed = FixedViews(targets, layout.splats(scene.name), fix, recipe, policy)
    fixed.fix_views(views, [view.pixels() for view in views])
    images = {view.name: view.pixels() for view in scene.views("source", time)}
    (chosen,) = [name for name, image in images.items() if np.array_equal(image, used[0])]
    assert len(used) == len(views) == 1
    assert {"nearest": "02", "source:04": "04"}.get(policy, chosen) == chosen
    assert policy != "overlap" or chosen not in ("02", "04")
