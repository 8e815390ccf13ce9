"""The shared folder of a static scene: only what static_prepare wrote is replaced."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash
from stages.scenes.images import write_png
from stages.scenes.static.config import StaticConfig, StaticRuntime
from stages.scenes.static.prepare import prepare
from stages.scenes.static.shared_folder import SharedFolder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """static/ of a scene whose images cannot be registered."""
    for name in ("monocular/a.png", "iphone_eval/b.png"):
        write_png(tmp_path / "static" / name, np.zeros((8, 8, 3), np.float32))
    return tmp_path / "static"


@pytest.mark.parametrize("marker", [None, "", "{}", "[1]", '{"made": {}}', "done"])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("part", ["images", "sparse", "notes"])
def test_folder_with_users_files_is_left_alone(
    raw: Path, marker: str | None, force: bool, part: str
) -> None:
    """Also with the empty marker of other programs, and with static.force."""
    folder = raw / "shared"
    (folder / part).mkdir(parents=True)
    (folder / part / "mine.txt").write_text("years of work")
    if marker is not None:
        (folder / ".prep_complete").write_text(marker)
    before = folder_hash(folder)
    with pytest.raises(UserError, match="which static_prepare did not write") as refused:
        prepare(
            raw, folder, StaticConfig(cameras=("monocular",), runtime=StaticRuntime(force=force))
        )
    assert "--prep-root" in str(refused.value)
    assert folder_hash(folder) == before


def test_refusal_names_five_files_and_counts_the_others(raw: Path) -> None:
    folder = raw / "shared"
    folder.mkdir()
    for name in "abcdefg":
        (folder / name).touch()
    with pytest.raises(UserError, match=r"holds a, b, c, d, e and 2 more, which static_prepare"):
        prepare(raw, folder, StaticConfig(cameras=("monocular",)))


def test_folder_of_the_images_is_no_shared_folder(raw: Path) -> None:
    before = folder_hash(raw)
    for folder in (raw, raw / "monocular", raw / "monocular" / "shared", raw.parent):
        with pytest.raises(UserError, match=r"among the images|which is an input"):
            prepare(raw, folder, StaticConfig(cameras=("monocular",)))
    assert folder_hash(raw) == before


def test_file_as_shared_folder_is_refused(raw: Path) -> None:
    (raw / "shared").write_text("mine")
    with pytest.raises(UserError, match="shared is a file"):
        prepare(raw, raw / "shared", StaticConfig(cameras=("monocular",)))


@pytest.mark.parametrize("left", [[], [".new.part", "images"], ["covisible", "alignments"]])
def test_leftovers_of_own_runs_are_replaceable(left: list[str], tmp_path: Path) -> None:
    for name in left:
        (tmp_path / name).mkdir()
    SharedFolder(tmp_path).check_replaceable()


def test_changed_input_files_are_named(tmp_path: Path) -> None:
    origin = {"files": {"stereo/left.png": "1", "stereo/right.png": "2"}}
    (tmp_path / ".prep_complete").write_text(json.dumps({"origin": origin, "made": {}}))
    shared = SharedFolder(tmp_path)
    assert shared.replaced_since(origin["files"] | {"new.png": "3"}) == []
    assert shared.replaced_since({"stereo/left.png": "9"}) == ["stereo/left.png"]


def test_shared_folder_of_another_scene_is_not_replaced(raw: Path, tmp_path: Path) -> None:
    """Of one that a variable names for two scenes; images that were added are no other scene."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    static = StaticConfig(cameras=("monocular",))
    (folder / "images").mkdir()
    (folder / "images/mine.png").touch()
    for files, message in (
        ({"monocular/a.png": "of another scene"}, "holds the preparation of another scene"),
        ({"monocular/z.png": file_hash(raw / "monocular/a.png")}, ""),
    ):
        marker = {"origin": {"files": files}, "made": {}}
        (folder / ".prep_complete").write_text(json.dumps(marker))
        before = folder_hash(folder)
        with pytest.raises(UserError) as refused:
            prepare(raw, folder, static)
        assert ("PREP_ROOT" in refused.value.fix) == bool(message)
        assert message in str(refused.value)
        assert folder_hash(folder) == before
    marker["origin"]["files"] = {"monocular/a.png": "of another scene"}
    (folder / ".prep_complete").write_text(json.dumps(marker))
    with pytest.raises(UserError) as refused:
        prepare(raw, folder, static.model_copy(update={"runtime": StaticRuntime(force=True)}))
    assert "PREP_ROOT" not in refused.value.fix
