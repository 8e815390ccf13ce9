"""Results of static scenes of one name are told apart by the content of their images."""

from pathlib import Path

import pytest
from small_capture import cameras, write_capture

from stages.run.errors import UserError
from stages.run.files import folder_hash, set_hash, write_json
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.shared_folder import SharedFolder
from stages.splat.captures.static_training import check_same_images, train_static
from stages.splat.config import StrategyConfig, TrainConfig

TRAIN = TrainConfig(
    max_steps=4,
    sh_degree=0,
    max_gaussians=300,
    eval_steps=(),
    ply_steps=(),
    save_steps=(),
    pose_opt=False,
    backend="cpu",
    strategy=StrategyConfig(refine_start_iter=1000),
)
NAMES = ("stereo__left.png", "stereo__right.png")


def prepared(folder: Path, content: str, shift: float = 0.0) -> SharedFolder:
    """The part of a shared folder that training reads; `content` stands for its images."""
    subset = write_capture(folder / "subsets" / "stereo", cameras(NAMES, shift))
    if content:
        write_json(subset / "photographs.json", {"photographs": set_hash([content])})
    return SharedFolder(folder)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))


@pytest.mark.parametrize("hashed", [True, False])
def test_another_scene_of_one_name_is_refused(tmp_path: Path, hashed: bool) -> None:
    """Also where an older version prepared both and only the prepared images differ."""
    one = prepared(tmp_path / "a", "a" if hashed else "")
    other = prepared(tmp_path / "b", "b" if hashed else "", 0.1)
    result = tmp_path / "results" / "dog" / "stereo"
    train_static(one, "stereo", StaticConfig(), TRAIN, result, "dog.stereo")
    before = folder_hash(result)
    with pytest.raises(UserError, match="holds the result of a dataset stereo"):
        train_static(other, "stereo", StaticConfig(), TRAIN, result, "dog.stereo")
    with pytest.raises(UserError, match="holds the result of a dataset stereo"):
        check_same_images(other, "stereo", result)
    check_same_images(one, "stereo", result)
    assert folder_hash(result) == before


def test_the_same_images_prepared_in_another_way_may_replace_a_result(tmp_path: Path) -> None:
    result = tmp_path / "stereo"
    one, anew = prepared(tmp_path / "a", "a"), prepared(tmp_path / "b", "a", 0.1)
    train_static(one, "stereo", StaticConfig(), TRAIN, result, "dog.stereo")
    train_static(anew, "stereo", StaticConfig(), TRAIN, result, "dog.stereo")
    check_same_images(anew, "stereo", result)


def test_folder_with_users_files_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "stereo" / "checkpoints" / "mine.pt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(UserError, match="no result of this command"):
        train_static(
            prepared(tmp_path / "a", "a"), "stereo", StaticConfig(), TRAIN, tmp_path / "stereo", "x"
        )
    assert mine.read_text() == "years of work"
