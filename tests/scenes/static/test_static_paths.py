"""Folders of a scene, by its path or by its name in the graph."""

from pathlib import Path

import pytest

from stages.run import layout
from stages.run.errors import UserError
from stages.scenes.static.paths import StaticPaths
from stages.scenes.static.shared_folder import SharedFolder


def paths_of(*arguments: Path | str | None) -> StaticPaths:
    return StaticPaths.of(
        *arguments, raw=layout.raw, shared=layout.static_shared, results=layout.static_results
    )


def test_paths_of_a_folder() -> None:
    paths = paths_of(Path("../gs7/dataset/dog"), None)
    assert paths.name == "dog"
    assert paths.raw == Path("../gs7/dataset/dog/static")
    assert paths.shared == Path("../gs7/dataset/dog/static/shared")
    assert paths.results == Path("results/static/dog")
    moved = paths_of(Path("dog"), None, Path("/x/shared_output"), Path("/scratch/static"))
    assert (moved.shared, moved.results) == (Path("/x/shared_output"), Path("/scratch/static/dog"))


def test_paths_of_a_scene_in_the_graph() -> None:
    paths = paths_of(None, "static_pair02_talk")
    assert paths.raw == Path("data/raw/static_pair02_talk/static")
    assert paths.shared == Path("data/static/static_pair02_talk/shared")
    assert paths.results == Path("results/static/static_pair02_talk")
    assert paths.in_graph


def test_either_a_folder_or_a_scene_is_given() -> None:
    for scene_dir, scene in ((None, None), (Path("dog"), "dog")):
        with pytest.raises(UserError, match="SCENE_DIR and --scene"):
            paths_of(scene_dir, scene)


def test_incompletely_prepared_scene_is_refused(tmp_path: Path) -> None:
    paths = paths_of(tmp_path / "dog", None)
    with pytest.raises(UserError, match="not prepared, or only in part"):
        paths.prepared()
    paths.shared.mkdir(parents=True)
    (paths.shared / ".prep_complete").write_text("{}")
    with pytest.raises(UserError, match=r"its .prep_complete is of another program"):
        paths.prepared()
    (paths.shared / ".prep_complete").write_text('{"origin": {}, "made": {}}')
    with pytest.raises(UserError, match="add stereo to"):
        paths.prepared().subset("stereo")


def test_masks_do_not_leave_their_folder(tmp_path: Path) -> None:
    mask = SharedFolder(tmp_path).mask("stereo", "clip/a.jpg")
    assert mask == tmp_path / "covisible" / "stereo" / "1x" / "val" / "clip" / "a.png"
    with pytest.raises(AssertionError, match="leads out"):
        SharedFolder(tmp_path).mask("stereo", "../a.png")
    with pytest.raises(UserError, match="expected letters"):
        SharedFolder(tmp_path).masks("../x")
