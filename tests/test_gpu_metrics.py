"""benchmarks/gpu_metrics.py and killed_study.py: what is compared, and which stages are killed."""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import killed_study
from benchmarks.gpu_metrics import TOLERANCE_DB, beyond, differences, means, noise_db, table
from benchmarks.killed_study import Kill, compare, kill_each, times_of_kills
from stages.run.errors import UserError
from stages.run.files import read_json, write_json

PROTOCOL = "192x256, 4 views {}, lpips alex 889a9ed0, masks auto"


def measured(folder: Path, scene: str, method: str, psnr: float, digest: str = "42fdda3f") -> None:
    means = {"psnr": psnr, "ssim": 0.5, "lpips": None, "protocol": PROTOCOL.format(digest)}
    path = folder / "scenes" / scene / f"{method}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, means)


def test_methods_are_compared_by_their_means_over_scenes(tmp_path: Path) -> None:
    gpu, cpu = tmp_path / "gpu", tmp_path / "cpu"
    for scene, more in (("a", 0.09), ("b", 0.03)):
        measured(cpu, scene, "none", 20.0)
        measured(gpu, scene, "none", 20.0 + more)
        measured(cpu, scene, "tuned-post", 21.0)
        measured(gpu, scene, "tuned-post", 21.0 - more, "00000000")
    measured(cpu, "a.seed1", "none", 20.0)
    measured(gpu, "a.seed1", "none", 25.0)
    measured(gpu, "c", "none", 25.0)
    rows = list(differences(gpu, cpu))
    assert [(row.scene, row.method, row.psnr) for row in rows] == [
        ("a", "none", 0.09),
        ("a", "tuned-post", -0.09),
        ("b", "none", 0.03),
        ("b", "tuned-post", -0.03),
    ]
    assert [row.same_views for row in rows] == [True, False, True, False]
    assert means(rows)["none"] == {"psnr": 0.06, "ssim": 0.0, "lpips": None}
    assert beyond(rows, TOLERANCE_DB) == {"none": 0.06, "tuned-post": -0.06}
    assert beyond(rows, 0.1) == {}
    assert "tuned-post" in table(rows)


def test_what_was_measured_otherwise_is_not_compared(tmp_path: Path) -> None:
    gpu, cpu = tmp_path / "gpu", tmp_path / "cpu"
    measured(gpu, "a", "none", 20.0)
    measured(cpu, "a", "none", 20.0)
    path = cpu / "scenes" / "a" / "none.json"
    path.write_text(path.read_text().replace("4 views", "8 views"))
    with pytest.raises(SystemExit, match=r"192x256, 4 views .* not as 192x256, 8"):
        list(differences(gpu, cpu))


def test_the_noise_of_the_committed_study_stands_beside_it(tmp_path: Path) -> None:
    assert noise_db(tmp_path) is None
    write_json(tmp_path / "delta.json", {"noise_floor": None})
    assert noise_db(tmp_path) is None
    write_json(tmp_path / "delta.json", {"noise_floor": {"psnr_least": 0.17}})
    assert noise_db(tmp_path) == 0.17


# Runs a stage that writes resume states; once there was one, the stage ends at once.
STUDY = """
import subprocess, sys, pathlib
state = pathlib.Path(".work/tune/tune/key/state.pt")
stage = (
    "import pathlib, time; path = pathlib.Path('.work/tune/tune/key/state.pt');"
    "resumed = path.exists(); time.sleep(0 if resumed else 0.8);"
    "path.parent.mkdir(parents=True, exist_ok=True); path.touch(); time.sleep(0 if resumed else 60)"
)
sys.exit(abs(subprocess.run([sys.executable, "-c", stage, "-m", "stages.tune"]).returncode))
"""


def test_each_kind_is_killed_once_and_not_before_its_first_state(tmp_path: Path) -> None:
    words = [sys.executable, "-c", STUDY]
    (tmp_path / "clone").mkdir()
    began = time.monotonic()
    (kill,) = kill_each(tmp_path / "clone", words, os.environ, {"tune": 0.1}, threading.Event())
    assert kill.stage == "tune"
    assert kill.had_state
    assert 0.7 < kill.after_s < time.monotonic() - began


def test_a_study_that_fails_by_itself_is_no_kill(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    words = ["sh", "-c", f"{shlex.join(['echo', 'no such scene'])}; exit 3"]
    with pytest.raises(SystemExit, match=r"(?s)no such scene.*exit code 3"):
        kill_each(tmp_path / "clone", words, os.environ, {"tune": 0.1}, threading.Event())


def test_a_study_is_stopped_and_not_started_again(tmp_path: Path) -> None:
    clone, stop, starts = tmp_path / "clone", threading.Event(), tmp_path / "starts"
    clone.mkdir()
    code = f"import time; open({str(starts)!r}, 'a').write('x'); time.sleep(600)"
    words = [sys.executable, "-c", code]
    with ThreadPoolExecutor() as pool:
        kills = pool.submit(kill_each, clone, words, os.environ, {"tune": 0.1}, stop)
        until(starts.is_file)
        stop.set()
        assert kills.result(30) == []
    assert starts.read_text() == "x"


def until(is_so: Callable[[], object]) -> None:
    """Wait up to a minute."""
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.1)
    pytest.fail("waited for a minute")


STOPPED = """
from benchmarks import command_line, killed_study

def prepare(folder, _):
    (folder / "stages").mkdir(parents=True)
    (folder / "stages" / "__init__.py").touch()
    code = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(600)"
    (folder / "stages" / "repro.py").write_text(code)

killed_study.prepare = prepare
command_line.launch(killed_study.main)
"""


@pytest.mark.parametrize(("stages", "studies"), [(["tune"], 1), ([], 2)])
def test_sigterm_stops_the_studies_and_leaves_no_folder(
    tmp_path: Path, stages: list[str], studies: int
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = [sys.executable, "-c", STOPPED, "--undisturbed", "2", "--stages", *stages]
    with (tmp_path / "log").open("w") as log:
        env = os.environ | {"TMPDIR": str(scratch)}
        study = subprocess.Popen(words, env=env, stdout=log, stderr=log)
    until(lambda: len(list(scratch.glob("splatfix-killed-*/*/begun"))) == studies)
    study.terminate()
    assert study.wait(60) == 130
    assert not list(scratch.glob("splatfix-killed-*"))
    assert (tmp_path / "log").read_text() == "stopped\n"


def test_states_are_looked_for_while_folders_vanish(tmp_path: Path) -> None:
    """A walk that a removed folder ends with an error fails within a second."""
    state = tmp_path / "tune" / "a" / "state.pt"
    state.parent.mkdir(parents=True)
    state.touch()
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for number in range(20):
                (tmp_path / f"{number}" / "key" / "deeper").mkdir(parents=True)
            for number in range(20):
                shutil.rmtree(tmp_path / f"{number}")

    with ThreadPoolExecutor() as pool:
        changed = pool.submit(change)
        try:
            end = time.monotonic() + 2
            while time.monotonic() < end:
                assert killed_study._newest(tmp_path) == state.stat().st_mtime
        finally:
            stop.set()
        changed.result()
    assert killed_study._newest(tmp_path / "nosuch") == 0


def test_states_of_kinds_that_were_killed_are_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killed_study, "_newest", lambda _: pytest.fail("looked"))
    monkeypatch.setattr(killed_study, "stage_processes", lambda _: {os.getpid(): []})
    monkeypatch.setattr(killed_study, "command_of", lambda _: ["-m", "stages.tune"])
    assert not list(killed_study._kill_due(tmp_path, 1, {}, {"train": -1.0}))


def test_a_key_that_does_not_exist_ends_before_any_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(killed_study, "times_of_stages", lambda *_: pytest.fail("it began"))
    monkeypatch.setattr(sys, "argv", ["killed_study", "--set", "nosuch=1"])
    with pytest.raises(UserError, match=r"^--set: nosuch=1: .*Could not override 'nosuch'\.$"):
        killed_study.main()


def apart(*killed: float, undisturbed: tuple[float, ...] = (-0.01, 0.0, 0.01, 0.0, 0.0)) -> bool:
    names = ("none", "tuned-post", "tuned-distill")
    runs = [dict.fromkeys(names, 0.0) | {"none": value} for value in killed]
    calm = [dict.fromkeys(names, value) for value in undisturbed]
    return [method for method, one in compare(runs, calm, 0.1).items() if one.is_far] == ["none"]


def test_killed_runs_differ_by_more_than_the_noise_of_undisturbed_ones() -> None:
    assert not apart(0.05)
    assert not apart(0.05, -0.05, 0.09)
    assert apart(0.11)
    assert apart(0.11, 0.11, 0.11)
    assert apart(0.0, 0.01, -5.0), "one of several"
    assert apart(-5.0, 5.0), "their mean is that of undisturbed ones"
    assert apart(0.0, 0.0004, undisturbed=(0.0, 0.0)), "equal ones have no noise"
    wide = (-0.1, 0.1, -0.1, 0.1, 0.0)
    assert not apart(0.5, undisturbed=wide)
    assert apart(0.9, undisturbed=wide)
    # The mean of many is known better than one.
    assert apart(*[0.6] * 8, undisturbed=wide)


def test_more_comparisons_need_larger_differences() -> None:
    calm = [{"a": value, "b": value} for value in (-0.1, 0.0, 0.1)]
    (one, _), (alone,) = (
        compare(
            [dict.fromkeys(names, 1.0)], [dict.fromkeys(names, run["a"]) for run in calm], 0.1
        ).values()
        for names in ("ab", "a")
    )
    assert one.least_db > 1.3 * alone.least_db
    many = compare([{"a": 1.0}] * 4, [{"a": run["a"]} for run in calm], 0.1)["a"]
    assert many.furthest_least_db > 1.3 * alone.furthest_least_db
    assert many.least_db < alone.least_db


def test_each_killed_run_has_times_of_its_own() -> None:
    args = argparse.Namespace(seed=3, stages=["tune"])
    times = [times_of_kills({"tune": 10.0}, args, number)["tune"] for number in (0, 1, 0)]
    assert times[0] == times[2] != times[1]
    assert all(3 <= one <= 7 for one in times)


@pytest.mark.parametrize(
    ("psnr", "killed", "code"), [(20.0, "tune", 0), (25.0, "tune", 1), (20.0, "", 1)]
)
def test_killed_studies_end_with_a_verdict(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    psnr: float,
    killed: str,
    code: int,
) -> None:
    def ended(folder: Path, *_: object) -> list[Kill]:
        torn = folder.name == "killed-1"
        measured(folder / "metrics", "a", "none", psnr if torn else 20.0)
        return [Kill("tune", 1.0, True)] if killed or not torn else []

    def times(first: Path, *_: object) -> dict[str, float]:
        ended(first)
        return {"tune": 10.0}

    monkeypatch.setattr(killed_study, "prepare", lambda folder, _: folder.mkdir())
    monkeypatch.setattr(killed_study, "undisturbed", ended)
    monkeypatch.setattr(killed_study, "kill_each", ended)
    monkeypatch.setattr(killed_study, "times_of_stages", times)
    words = ["--stages", "tune", "--killed", "2", "--undisturbed", "3"]
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["killed_study", *words, "--out", str(out)])
    with pytest.raises(SystemExit) as exit_:
        killed_study.main()
    assert exit_.value.code == code
    said = capsys.readouterr().out
    assert "2 killed runs less 3 undisturbed ones" in said
    far = "none" if psnr != 20.0 else ""  # the method is called so
    assert read_json(out)["beyond_noise"] == [far] * bool(far)
    assert ("ended before they were killed: tune" in said) == (not killed)
