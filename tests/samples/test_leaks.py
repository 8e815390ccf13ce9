from pathlib import Path

import numpy as np
import pytest

from stages.run.errors import UserError
from stages.samples.leaks import foreign_references, image_digests, shared_digests
from stages.scenes.cameras import Camera
from stages.scenes.images import write_png
from stages.scenes.scene import Scene
from stages.scenes.view import View


def make_scene(root: Path, name: str, contents: dict[str, str]) -> Scene:
    """Camera `t..` is a target, any other a source; an image has the given text."""
    views = []
    for camera, text in contents.items():
        path = root / name / f"{camera}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        role = "target" if camera.startswith("t") else "source"
        model = Camera(camera, np.eye(3), np.eye(4), 8, 8)
        views.append(View(model, path, timestamp="000001", role=role))
    return Scene(root / name, name, name, tuple(views))


def shared(roles: dict[str, list[Scene]]) -> list[UserError]:
    images = (
        image
        for role, scenes in roles.items()
        for scene in scenes
        for image in image_digests(role, scene)
    )
    return shared_digests(images)


def test_distinct_images_pass(tmp_path: Path) -> None:
    tuning = [make_scene(tmp_path, "a", {"s1": "1", "t1": "2"})]
    downstream = [make_scene(tmp_path, "b", {"s1": "3", "t1": "4"})]
    assert shared({"tuning_scenes": tuning, "downstream_scenes": downstream}) == []


def test_copied_image_is_found_under_another_name(tmp_path: Path) -> None:
    tuning = [make_scene(tmp_path, "a", {"s1": "1", "s2": "2"})]
    downstream = [make_scene(tmp_path, "b", {"s7": "3", "t9": "2"})]
    (error,) = shared({"tuning_scenes": tuning, "downstream_scenes": downstream})
    assert str(error).splitlines()[:2] == [
        f"{tmp_path}/b/t9.png: the same image as {tmp_path}/a/s2.png",
        "expected no image in both source views of tuning_scenes "
        "and target views of downstream_scenes",
    ]


def test_source_image_that_is_a_target_too_is_found(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, "a", {"s1": "1", "s2": "2", "t1": "2"})
    assert len(shared({"downstream_scenes": [scene]})) == 1


def test_equal_images_within_one_role_are_no_leak(tmp_path: Path) -> None:
    scenes = [make_scene(tmp_path, name, {"s1": "1", "s2": "1"}) for name in "ab"]
    assert shared({"tuning_scenes": scenes}) == []


def test_reference_must_be_a_source_cameras_image(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, "a", {"s1": "1", "s2": "2", "t1": "3"})
    make_scene(tmp_path, "b", {"s1": "9"})
    copied = tmp_path / "pairs.png"
    copied.write_text("2")
    assert foreign_references(scene, {"t1": copied, "t2": tmp_path / "a" / "s1.png"}) == []
    target, other = foreign_references(
        scene, {"t1": tmp_path / "a" / "t1.png", "t2": tmp_path / "b" / "s1.png"}
    )
    assert target.got == "the reference of t1 is target camera t1's image"
    assert other.got == "the reference of t2 is no image of the scene"
    assert target.expected == "a source camera's: s1, s2"


@pytest.mark.parametrize("name", ["s1", "t1"])
def test_reference_with_the_bytes_of_a_target_is_refused(tmp_path: Path, name: str) -> None:
    scene = make_scene(tmp_path, "a", {"s1": "1", "t1": "1"})
    assert len(foreign_references(scene, {"t1": tmp_path / "a" / f"{name}.png"})) == 1


def test_render_as_reference_must_not_be_a_target_image_in_any_file(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, "a", {"s1": "1", "t1": "2"})
    random = np.random.default_rng(0)
    image, other = (random.random((8, 8, 3)).astype(np.float32) for _ in range(2))
    write_png(tmp_path / "a" / "t1.png", image)
    copied, rendered = tmp_path / "copied.png", tmp_path / "rendered.png"
    # The same pixels after other chunks: another hash.
    copied.write_bytes((tmp_path / "a" / "t1.png").read_bytes() + b"more")
    write_png(rendered, other)
    assert foreign_references(scene, {"x": rendered}, {"x"}) == []
    (leak,) = foreign_references(scene, {"x": copied}, {"x"})
    assert leak.got == "the reference of x is target camera t1's image"
    (foreign,) = foreign_references(scene, {"x": rendered})
    assert foreign.got == "the reference of x is no image of the scene"
