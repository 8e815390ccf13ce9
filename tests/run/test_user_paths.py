"""Folders of the command line: unsuitable ones are refused with one message and stay unchanged."""

from pathlib import Path

import pytest

from stages.run.errors import UserError
from stages.run.user_paths import (
    check_apart,
    check_replaceable,
    check_source,
    make_file_target,
    make_target,
)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    for target in ("file", "file/below", "file/a/b"):
        with pytest.raises(UserError, match="file is a file\nexpected a folder\nfix: name another"):
            make_target(tmp_path / target)
    with pytest.raises(UserError, match="lost is a broken link"):
        make_target(tmp_path / "lost")
    with pytest.raises(UserError, match="file: is a file\nexpected a folder"):
        check_source(tmp_path / "file")
    with pytest.raises(UserError, match="none: no such folder"):
        check_source(tmp_path / "none")
    with pytest.raises(UserError, match="is a folder\nexpected the name of a file"):
        make_file_target(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "lost"}


@pytest.mark.parametrize("place", ["/proc/r", "/proc/self/r/s", "/sys/r"])
def test_where_nothing_can_be_made(place: str) -> None:
    if not Path(place).parents[len(Path(place).parents) - 2].is_dir():
        pytest.skip(f"no such file system as {place} lies on")
    with pytest.raises(UserError, match="cannot be written: "):
        make_target(Path(place))


def test_names_that_are_too_long(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: File name too long"):
        make_target(tmp_path / ("x" * 300))


def test_what_can_be_written_is_made(tmp_path: Path) -> None:
    make_target(tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    make_target(tmp_path / "link")
    make_target(tmp_path / "a" / "b")
    assert not any((tmp_path / "a" / "b").iterdir())
    make_file_target(tmp_path / "c" / "file.txt")
    assert (tmp_path / "c").is_dir()


def folders(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)


@pytest.mark.parametrize("target", ["p", "p/out", "p/a/b", "p/../p/out", "link/out"])
def test_results_among_photographs_are_refused(tmp_path: Path, target: str) -> None:
    folders(tmp_path, "p")
    (tmp_path / "link").symlink_to(tmp_path / "p")
    with pytest.raises(UserError, match="among the images"):
        check_apart(tmp_path / "p", tmp_path / target)


def test_results_beside_images_are_not_among_them(tmp_path: Path) -> None:
    folders(tmp_path, "d/images", "d/sparse")
    check_apart(tmp_path / "d", tmp_path / "d" / "results")
    check_apart(tmp_path / "d", tmp_path / "d-results")
    for target in ("d", "d/images", "d/images/out", "d/sparse/0", "d/masks", "d/masks/out"):
        with pytest.raises(UserError, match="among the images"):
            check_apart(tmp_path / "d", tmp_path / target)


def test_a_folder_that_holds_the_photographs_takes_no_results(tmp_path: Path) -> None:
    folders(tmp_path, "all/photos", "out/dataset/photos")
    with pytest.raises(UserError, match="photos, which is an input"):
        check_apart(tmp_path / "all/photos", tmp_path / "all")
    with pytest.raises(UserError, match="photos, which is an input"):
        check_apart(tmp_path / "out/dataset/photos", tmp_path / "out")
    check_apart(tmp_path / "out/dataset/photos", tmp_path / "out", kept="dataset")


def test_only_what_has_the_mark_is_replaced(tmp_path: Path) -> None:
    check_replaceable(tmp_path, "mark")
    check_replaceable(tmp_path / "none", "mark")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty, and no result of this command"):
        check_replaceable(tmp_path, "mark")
    (tmp_path / "mark").touch()
    check_replaceable(tmp_path, "mark")
