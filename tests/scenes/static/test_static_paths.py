"""Folders of a scene, by a path or by a name of the graph."""

from pathlib import Path

import pytest

from stages.run.errors import UserError
from stages.scenes.static.paths import StaticPaths
from stages.scenes.static.shared_folder import SharedFolder


def test_by_a_path_as_the_scripts_have_it() -> None:
    found = StaticPaths.of(Path("../gs7/dataset/dog"), None)
    assert found.name == "dog"
    assert found.raw == Path("../gs7/dataset/dog/static")
    assert found.shared == Path("../gs7/dataset/dog/static/shared")
    assert found.results == Path("results/static/dog")
    moved = StaticPaths.of(Path("dog"), None, Path("/x/shared_output"), Path("/scratch/static"))
    assert (moved.shared, moved.results) == (Path("/x/shared_output"), Path("/scratch/static/dog"))


def test_by_a_name_of_the_graph() -> None:
    found = StaticPaths.of(None, "static_pair02_talk")
    assert found.raw == Path("data/raw/static_pair02_talk/static")
    assert found.shared == Path("data/static/static_pair02_talk/shared")
    assert found.results == Path("results/static/static_pair02_talk")
    assert found.in_graph


def test_needs_one_of_both() -> None:
    for given in ((None, None), (Path("dog"), "dog")):
        with pytest.raises(UserError, match="SCENE_DIR and --scene"):
            StaticPaths.of(*given)


def test_refuses_a_scene_that_was_not_prepared_to_its_end(tmp_path: Path) -> None:
    places = StaticPaths.of(tmp_path / "dog", None)
    with pytest.raises(UserError, match="not prepared, or not to its end"):
        places.prepared()
    places.shared.mkdir(parents=True)
    (places.shared / ".prep_complete").write_text("{}")
    with pytest.raises(UserError, match="put stereo into"):
        places.prepared().subset("stereo")


def test_masks_stay_in_their_folder(tmp_path: Path) -> None:
    mask = SharedFolder(tmp_path).mask("stereo", "clip/a.jpg")
    assert mask == tmp_path / "covisible" / "stereo" / "1x" / "val" / "clip" / "a.png"
    with pytest.raises(AssertionError, match="leads out"):
        SharedFolder(tmp_path).mask("stereo", "../a.png")
    with pytest.raises(UserError, match="expected letters"):
        SharedFolder(tmp_path).masks("../x")
