import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages.run import files
from stages.run.errors import UserError


def old_folder(parent: Path) -> Path:
    """A finished result of an earlier run."""
    target = parent / "out"
    target.mkdir()
    (target / "a.txt").write_text("old")
    (target / "b.txt").write_text("old")
    return target


def test_whole_folder_appears_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with files.whole_folder(target) as scratch:
        (scratch / "a.txt").write_text("new")
        assert not target.exists()
        assert scratch.parent == target.parent, "a rename must stay on one file system"
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    assert (target / "a.txt").read_text() == "new"


def test_whole_folder_replaces_all_of_an_older_one(tmp_path: Path) -> None:
    target = old_folder(tmp_path)
    with files.whole_folder(target) as scratch:
        (scratch / "a.txt").write_text("new")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"a.txt": "new"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("place", ["elsewhere", "nowhere"])
def test_whole_folder_takes_the_place_of_a_link_and_leaves_what_it_leads_to(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept.txt").write_text("old")
    target = tmp_path / "out"
    target.symlink_to(tmp_path / place)
    for text in ("first", "second"):
        with files.whole_folder(target) as scratch:
            (scratch / "a.txt").write_text(text)
        assert (target / "a.txt").read_text() == text
    assert (tmp_path / "elsewhere" / "kept.txt").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "out"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_whole_folder_leaves_the_older_one_on_an_error(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = old_folder(tmp_path)

    def fail_half_way() -> None:
        with files.whole_folder(target) as scratch:
            (scratch / "a.txt").write_text("new")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert (target / "a.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.run import files

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def unlink_then_die(*arguments, unlink=os.unlink, **options):
    unlink(*arguments, **options)
    die()

target, moment = Path(sys.argv[1]), sys.argv[2]
with files.whole_folder(target) as scratch:
    for name in ("a.txt", "b.txt"):
        (scratch / name).write_text("new")
        if moment == "writing":
            die()
    if moment == "deleting":
        os.unlink = unlink_then_die  # what shutil.rmtree calls for each file
"""


@pytest.mark.parametrize("moment", ["writing", "deleting"])
def test_killed_process_leaves_a_whole_folder_or_none(tmp_path: Path, moment: str) -> None:
    target = old_folder(tmp_path)
    ended = subprocess.run([sys.executable, "-c", KILLED, target, moment])
    assert ended.returncode == -signal.SIGKILL
    contents = {path.name: path.read_text() for path in target.glob("*")}
    assert contents in ({}, dict.fromkeys(("a.txt", "b.txt"), contents.get("a.txt")))
    with files.whole_folder(target) as scratch:
        assert list(scratch.iterdir()) == [], "leftovers of the killed process"
        (scratch / "c.txt").write_text("next")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "c.txt"]


def test_whole_file_is_replaced_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with files.whole_file(target) as scratch:
        scratch.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    with pytest.raises(FileNotFoundError), files.whole_file(target) as scratch:
        scratch.with_name("absent").rename(scratch)
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_failed_write_names_the_target(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="out") as caught,
        files.whole_folder(tmp_path / "out"),
        open("/dev/full", "w") as full,
    ):
        full.write("x")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "out")


def test_error_without_a_number_keeps_its_text(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="image file is truncated"),
        files.whole_file(tmp_path / "out"),
    ):
        raise OSError("image file is truncated")


@pytest.mark.parametrize("name", ["hi4d_pair15_fight", "tuned-post", "0", "a.b"])
def test_plain_names_pass(name: str) -> None:
    assert files.safe_name(name, "here") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/etc", "../a", "a/../b", "a..b", ".hidden", "-rf", "a b", "a\n", "ä"],
)
def test_names_that_leave_the_folder_or_need_quotes_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="here"):
        files.safe_name(name, "here")


def test_json_keeps_key_order_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    files.write_json(path, {"psnr": 1.5, "lpips": None, "a": "ä"})
    assert list(files.read_json(path).items()) == [("psnr", 1.5), ("lpips", None), ("a", "ä")]
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"psnr": float("nan")})
    assert path.read_bytes() == before
    json.loads(before)


def test_broken_json_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    with pytest.raises(UserError, match="no such file"):
        files.read_json(path)
    path.write_text('{\n "a": 1,\n}\n')
    with pytest.raises(UserError, match=r"m\.json:3: not JSON"):
        files.read_json(path)


def test_tsv_round_trip_and_broken_row(tmp_path: Path) -> None:
    path = tmp_path / "v.tsv"
    rows = [{"view": "28", "psnr": 20.5, "x": 1}, {"view": "64", "psnr": None, "x": 2}]
    files.write_tsv(path, rows, ["view", "psnr"])
    assert files.read_tsv(path) == [{"view": "28", "psnr": "20.5"}, {"view": "64", "psnr": ""}]
    path.write_text("view\tpsnr\n28\t1\n64\n")
    with pytest.raises(UserError, match=r"v\.tsv:3: 1 cell\n"):
        files.read_tsv(path)


def test_hashes_depend_on_content_names_and_boundaries(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of b""
    (tmp_path / "a").write_text("")
    assert files.file_hash(tmp_path / "a") == empty
    assert files.text_hash("ab", "c") != files.text_hash("a", "bc")
    first = files.folder_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert files.folder_hash(tmp_path) != first
    (tmp_path / "b").rename(tmp_path / "a")
    assert files.folder_hash(tmp_path) == first


def test_texts_of_foreign_bytes_have_a_hash() -> None:
    names = [os.fsdecode(name) for name in (b"\xc7\xd1", b"\xc7\xd2")]
    assert files.text_hash(names[0]) != files.text_hash(names[1])


def test_work_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(files.WORK_ROOT_VARIABLE, raising=False)
    assert files.work_root() == Path(".work")
    monkeypatch.setenv(files.WORK_ROOT_VARIABLE, "/scratch/me")
    assert files.work_root() == Path("/scratch/me")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": {"b": 1, "c": 2, "b": 3, "c": 4}}', "more than once: 'b', 'c'"),
        (b"[1]", "a list"),
        (b'"x"', "a str"),
        (b"null", "a NoneType"),
        (b'{"a": NaN}', "it holds NaN"),
        (b'{"a": -Infinity}', "it holds -Infinity"),
        (b'{"a": [1e999]}', "it holds 1e999"),
        (b"\xff\xfe{", "not text"),
        (b'{"a":' + b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_json_object_is_one_message(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)
    assert "fix: " in str(caught.value)


def test_a_key_that_stands_twice_is_no_other_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "b": 2, "a": 3}')
    with pytest.raises(UserError) as caught:
        files.read_json(path)
    assert str(caught.value).splitlines()[:2] == [
        f"{path}: one object holds these keys more than once: 'a'",
        "expected each key once",
    ]
    path.write_text("{" + ", ".join(f'"{number % 50}": 1' for number in range(100)) + "}")
    with pytest.raises(UserError, match=r"once: '0', '1', '2', '3', '4' and 45 more\n"):
        files.read_json(path)


def test_a_file_of_another_shape_is_one_message(tmp_path: Path) -> None:
    def read(value: dict) -> None:
        with files.shaped(tmp_path / "a.json", "sizes: a list of numbers"):
            float(value["sizes"][0]).hex()

    read({"sizes": [1]})
    for value in ({}, {"sizes": 1}, {"sizes": []}, {"sizes": None}, {"sizes": ["x"]}):
        with pytest.raises(UserError, match=r"a\.json: .*\nexpected sizes: a list of numbers"):
            read(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\tsize\na\tnan\n", r"t\.tsv:2: size: 'nan'\nexpected a number"),
        ("name\tsize\na\t1\nb\tx\n", r"t\.tsv:3: size: 'x'"),
        ("name\tsize\na\t1e999\n", "size: '1e999'"),
        ("title\tsize\na\t1\n", "no column 'name'"),
    ],
)
def test_table_of_other_than_numbers_is_reported(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("name\tsize\na\t1.5\nb\t\n")
    assert files.read_table(path, {"name"}) == [
        {"name": "a", "size": 1.5},
        {"name": "b", "size": None},
    ]
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        files.read_table(path, {"name"})
