"""dvc.lock by its entries: the same values and bytes as by DVC's own parser and writer."""

import json
import random
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import dumps_yaml, loads_yaml, modify_yaml

from stages.graph import lock_file

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "dvc.lock").read_text()
HEAD = "schema: '2.0'\nstages:\n"
VALUES = (
    *(1, -3, 0.5, 1e-05, 1e22, True, None, "plain", "1e5", "true", "", "~", "0123", "2024-01-31"),
    *("two\nlines\n\nand  more", "word " * 60, "a: b # c", "ä ü", "'\"", "- x", " lead"),
    *([], {}, [1, [2, {"a": []}]], {"b": {"c": [None, "x y"]}, "4": 1}, "    deps:", "x\n    y"),
    *("params:\nx", {"params": None}),
)


def stage(draw: random.Random) -> dict[str, Any]:
    """What DVC records of a stage, with any values of params."""
    number = draw.randrange(10**6)
    params = {f"key{index}.sub": draw.choice(VALUES) for index in range(draw.randrange(1, 6))}
    parts = {
        "cmd": draw.choice(
            ["python -m x", "word " * 40, f"python -m stages.train --scene s{number}"]
        ),
        "deps": [{"path": f"data/{number}", "hash": "md5", "md5": f"{number:032}", "size": number}],
        "params": {"params.yaml": params},
        "outs": [{"path": f"out {number}", "hash": "md5", "md5": f"{number}e5.dir", "nfiles": 2}],
    }
    kept = [key for key in parts if key == "cmd" or draw.random() < 0.8]
    return {key: parts[key] for key in kept}


def test_this_repository_s_is_read_as_dvc_reads_it() -> None:
    whole = loads_yaml(LOCK)
    assert lock_file.parsed(LOCK) == whole
    some = list(whole["stages"])[3:40:7]
    assert lock_file.parsed(LOCK, some)["stages"] == {name: whole["stages"][name] for name in some}
    assert lock_file.parsed(LOCK, ["none"])["stages"] == {}


def test_stage_in_the_run_cache_has_dvc_s_text() -> None:
    draw = random.Random(0)
    values = [*loads_yaml(LOCK)["stages"].values(), *(stage(draw) for _ in range(100))]
    for odd in ({4: 1, None: 2}, {"4": 1, "": 2}, date(2024, 1, 31), float("inf"), 1, 1.0, True):
        values.append({"cmd": "x", "params": {"params.yaml": {"key": odd}}, "outs": []})
    for value in values:
        assert lock_file.alone(value) == dumps_yaml(lock_file._unshared(value))


@pytest.mark.parametrize("seed", range(20))
def test_record_leaves_what_dvc_leaves(tmp_path: Path, seed: int) -> None:
    """Its bytes for the stages of the record; DVC folds some long texts of others anew."""
    draw = random.Random(seed)
    names = [f"{kind}@scene-{number}" for kind in ("train", "fix_x.y") for number in range(4)]
    ours, theirs = tmp_path / "ours.lock", tmp_path / "theirs.lock"
    for _ in range(4):
        changed = {name: stage(draw) for name in draw.sample(names, 2)}
        before = lock_file.entries(ours.read_text()) if ours.exists() else {}
        if before:
            shutil.copy(ours, theirs)
        assert lock_file.record(ours, changed)
        with modify_yaml(theirs) as data:
            data.setdefault("schema", "2.0")
            data.setdefault("stages", {}).update(loads_yaml(json.dumps(changed)))
        assert lock_file.load(ours) == loads_yaml(theirs.read_text())
        entries, by_dvc = (lock_file.entries(path.read_text()) for path in (ours, theirs))
        assert list(entries) == list(by_dvc)
        assert {name: entries[name] for name in changed} == {name: by_dvc[name] for name in changed}
        assert all(entries[name] == before[name] for name in entries if name not in changed)


def test_this_repository_s_is_written_as_dvc_writes_it(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.lock", tmp_path / "theirs.lock"
    changed = {name: loads_yaml(LOCK)["stages"]["tune"] for name in ("tune", "decide", "new@a")}
    for path in (ours, theirs):
        path.write_text(LOCK)
    assert lock_file.record(ours, changed)
    with modify_yaml(theirs) as data:
        data["stages"].update(loads_yaml(json.dumps(changed)))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        "stages: {}\n",
        HEAD,
        f"{HEAD}  null:\n    cmd: x\n",
        f"{HEAD}  a:\n    cmd: x\ndatasets: []\n",
        f"{HEAD}<<<<<<< HEAD\n  a:\n    cmd: x\n",
        f"{HEAD}  a:\n    cmd: x\n<<<<<<< HEAD\n    deps: []\n",
        f"{HEAD}  # by hand\n  a:\n    cmd: x\n",
        f"{HEAD}  'yes':\n    cmd: x\n",
        f"{HEAD}  a: {{cmd: x}}\n",
        f"{HEAD}  a:\n    params:\n      p.yaml:\n        k: &id001 []\n        l: *id001\n",
        f"{HEAD}  a:\n   cmd: x\n",
        f"{HEAD}  a:\n    cmd: x\n  a:\n    cmd: y\n",
        f"{HEAD}  a:\n    cmd: x",
        f"{HEAD}  a:\n    cmd: 'x\n",
        f"{HEAD}  a:\n    cmd: x\n    params: [\n",
        "schema: '3.0'\nstages:\n  a:\n    cmd: x\n",
    ],
)
def test_another_layout_is_left_to_dvc(tmp_path: Path, text: str) -> None:
    assert lock_file.parsed(text) is None
    path = tmp_path / "dvc.lock"
    path.write_text(text)
    if lock_file.entries(text) is None:
        assert not lock_file.record(path, {"b": {"cmd": "y"}})
        assert path.read_text() == text
    path.write_bytes(b"\xff")
    assert lock_file.load(path) is None
    assert not lock_file.record(path, {"b": {"cmd": "y"}})


def test_params_that_repeat_a_value_are_written_out(tmp_path: Path) -> None:
    """Aliases of one stage and another's would have equal names, which DVC refuses to read."""
    path, cameras = tmp_path / "dvc.lock", ["4", "16"]
    value = {"cmd": "x", "params": {"params.yaml": {"scenes": {"a": cameras, "b": cameras}}}}
    assert lock_file.record(path, {"prepare@a": value, "prepare@b": value})
    with modify_yaml(path) as data:
        assert data["stages"] == {"prepare@a": value, "prepare@b": value}


def test_names_that_yaml_quotes_are_left_to_dvc(tmp_path: Path) -> None:
    for name in ("1", "true@x y", "n" * 130, "null"):
        assert lock_file.block(name, {"cmd": "y"}) is None
    assert not (tmp_path / "dvc.lock").exists()


RECORDER = """
import sys
from pathlib import Path
from stages.graph import lock_file
print("begins", flush=True)
for number in range(10**6):
    lock_file.record(Path(sys.argv[1]), {"train@a": {"cmd": "x", "outs": []}, "new": {"cmd": "y"}})
"""


def test_killed_recorder_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    path.write_text(LOCK)
    before = lock_file.entries(LOCK)
    for turn in range(5):
        words = [sys.executable, "-c", RECORDER, str(path)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as recorder:
            recorder.stdout.readline()
            time.sleep(0.2 + 0.013 * turn)
            recorder.kill()
        after = lock_file.entries(path.read_text())
        assert after is not None
        assert after.keys() - {"train@a", "new"} == before.keys()


def test_entry_in_a_file_is_that_of_its_text(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    assert lock_file.stored(path, "a") == ""
    for text in ("", LOCK, LOCK.replace("\n", "\r\n"), f"{HEAD}  a:\n    cmd: ä\n"):
        path.write_bytes(text.encode())
        for name in ("train@hi4d_pair15_fight", "a", "none", list(lock_file.entries(LOCK))[-1]):
            assert lock_file.stored(path, name) == lock_file.entry(path.read_text(), name)
            assert lock_file.load(path, [name]) == lock_file.parsed(path.read_text(), [name])
    path.write_bytes(f"{HEAD}  a:\n    cmd: x\n  b:\n    cmd: ".encode() + b"\xff\n")
    assert lock_file.stored(path, "a") == "  a:\n    cmd: x\n"
    assert lock_file.load(path, ["b"]) is None


def test_file_is_read_while_dvc_writes_it_in_place(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    path.write_text(LOCK)
    name, whole = list(lock_file.entries(LOCK).items())[-1]
    code = f"""
from pathlib import Path
from stages.graph import lock_file
print("began", flush=True)
while not Path({str(tmp_path / "over")!r}).exists():
    assert lock_file.stored(Path({str(path)!r}), {name!r}) in {whole!r}, "not a part"
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        until = time.monotonic() + 1
        while reader.poll() is None and time.monotonic() < until:
            path.write_text(LOCK)
        (tmp_path / "over").touch()
    assert reader.returncode == 0


def test_some_stages_are_read_without_the_others() -> None:
    text = f"{HEAD}  a:\n    cmd: x\n  ab:\n    cmd: y\n    deps:\n    - path: '  a:'\n"
    assert lock_file.entry(text, "a") == "  a:\n    cmd: x\n"
    assert lock_file.entry(text, "ab") == "  ab:\n    cmd: y\n    deps:\n    - path: '  a:'\n"
    assert lock_file.entry(text, "b") == ""
    assert lock_file.parsed(text, ["ab"])["stages"]["ab"]["cmd"] == "y"
    odd = f"{text}  'yes':\n    cmd: z\n"
    assert lock_file.parsed(odd, ["a"])["stages"] == {"a": {"cmd": "x"}}
    assert lock_file.parsed(odd, ["a", "yes"]) is None, "it may be there in other words"
    assert lock_file.parsed(f"{text}<<<<<<< HEAD\n", ["a"]) is None
    assert lock_file.parsed(f"{text}  a:\n    cmd: z\n", ["a"]) is None
