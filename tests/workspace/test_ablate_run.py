"""`python -m stages.ablate` as a user types it, on a small study whose stages are cheap."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clean_environment import NEW_REPOSITORY, clean_environment
from ruamel.yaml import YAML

from stages.run.files import write_json
from stages.run.process.stopping import PREEMPTED

ROOT = Path(__file__).resolve().parents[2]
SCENES = {"internal_eval_scenes": "hi4d_pair02_dance", "downstream_scenes": "hi4d_pair15_fight"}
GRAPH = """
stages:
  train:
    cmd: python work.py train
    deps: [work.py]
    params: [train.seed]
    outs: [data/splat.txt]
  pairs:
    cmd: python work.py pairs
    deps: [work.py, data/splat.txt]
    params: [difix.reference_from]
    outs: [data/pairs.txt]
  tune:
    cmd: python work.py tune
    deps: [work.py, data/pairs.txt]
    params: [tune.seed, tune.steps]
    outs: [data/tuned.txt]
  fixed_views:
    cmd: python work.py fixed_views
    deps: [work.py, data/splat.txt, data/tuned.txt]
    params: [difix, study.evaluated_scenes, study.subject]
    metrics:
    - metrics/scenes: {cache: false}
    plots:
    - metrics/views: {cache: false}
  compare:
    cmd: python work.py compare
    deps: [work.py, metrics/scenes]
    metrics: [metrics/summary.json: {cache: false}]
"""
# Pairs of `previous` are those of `nearest`. Each policy shifts the PSNR by a known number.
WORK = """
import os, sys
from pathlib import Path
from ruamel.yaml import YAML
from stages.quality.keys import AVERAGED, MEASURED
from stages.run import layout
from stages.run.files import write_json, write_tsv

kind = sys.argv[1]
params = YAML(typ="safe").load(Path("params.yaml"))
policy, seed = params["difix"]["reference_from"], params["tune"]["seed"]
with open(os.environ["RAN"], "a") as ran:
    ran.write(f"{kind} {policy}\\n")
Path("data").mkdir(exist_ok=True)
if kind == "train":
    Path("data/splat.txt").write_text("splat")
elif kind == "pairs":
    Path("data/pairs.txt").write_text("overlap" if policy == "overlap" else "nearest")
elif kind == "tune":
    Path("data/tuned.txt").write_text(Path("data/pairs.txt").read_text() + str(seed))
elif kind == "fixed_views":
    shift = {"nearest": 0, "overlap": 1, "previous": -0.5}[policy] + 0.01 * seed
    for scene in params["study"]["evaluated_scenes"]:
        rows = []
        for time in ("000021", "000033"):
            for camera in ("28", "64"):
                of_view = 20 + shift + int(camera) / 100
                measures = {**dict.fromkeys(MEASURED), "psnr": of_view, "ssim": 0.7, "lpips": 0.2}
                rows.append({"timestamp": time, "camera": camera, **measures})
        means, views = layout.evaluation(scene, params["study"]["subject"])
        mean = {**dict.fromkeys(AVERAGED), **rows[0], "psnr": sum(row["psnr"] for row in rows) / 4}
        del mean["timestamp"], mean["camera"]
        write_json(means, {**mean, "mean_color_psnr": 15.0, "views": 4, "protocol": "p"})
        write_tsv(views, rows, ["timestamp", "camera", *MEASURED])
else:
    Path("metrics/summary.json").write_text("{}")
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study whose default is committed; `ran.txt` beside it lists its runs."""
    folder = tmp_path / "study"
    folder.mkdir()
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    names = list(SCENES.values())
    params["study"] |= {"scenes": names, "evaluated_scenes": names, "reserved_scenes": []}
    params["study"] |= {role: [name] for role, name in SCENES.items()} | {"tuning_scenes": []}
    params["study"] |= {"methods": ["none", "tuned-post"], "fixers": ["tuned"]}
    yaml.dump(params, folder / "params.yaml")
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "work.py").write_text(WORK)
    (folder / ".gitignore").write_text("/data/\n/.work/\n")
    (folder / ".dvcignore").write_text(".work/\n")
    seconds = {"train": 100.0, "pairs": 10.0, "tune": 60.0, "fixed_views": 20.0, "compare": 1.0}
    write_json(
        folder / "metrics" / "costs.json", {name: {"seconds": s} for name, s in seconds.items()}
    )
    for words in (
        *NEW_REPOSITORY,
        ("dvc", "repro", "-q"),
        ("git", "add", "-A"),
        ("git", "commit", "-qm", "Default"),
    ):
        run(folder, *words)
    return folder


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        words, cwd=folder, env=environment_of(folder), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment_of(folder: Path) -> dict[str, str]:
    return clean_environment(PYTHONPATH=str(ROOT), RAN=str(folder.with_name("ran.txt")))


def ablate(folder: Path, *words: str) -> str:
    policies = "difix.reference_from=nearest,overlap,previous"
    return run(folder, sys.executable, "-m", "stages.ablate", policies, *words)


@pytest.mark.slow  # four experiments of DVC
def test_policies_of_references_in_one_command(study: Path) -> None:
    ran = study.with_name("ran.txt")
    ran.write_text("")
    before = (study / "params.yaml").read_bytes()
    lines = ablate(study).splitlines()
    four = "4 stages (pairs; tune; fixed_views; compare), about 1 min 31 s"
    assert lines[:6] == [
        "2 arms to compare with the default, and 1 repeat of it for the noise; reading the state "
        "of all stages ...",
        "experiments to run: 3 of 3",
        f"  difix.reference_from=overlap: {four}",
        f"  difix.reference_from=previous: {four}",
        "  tune.seed=1 (the default from another seed, for the noise; `--repeats 0` leaves it "
        "out): 3 stages (tune; fixed_views; compare), about 1 min 21 s",
        "in all at most 11 stages, about 4 min 23 s; results of equal inputs come from the cache",
    ]
    # Nothing that an arm does not change runs: no train, and no tune of equal pairs.
    assert ran.read_text().split("\n")[:-1] == [
        *(f"{kind} overlap" for kind in ("pairs", "tune", "fixed_views", "compare")),
        *(f"{kind} previous" for kind in ("pairs", "fixed_views", "compare")),
        *(f"{kind} nearest" for kind in ("tune", "fixed_views", "compare")),
    ]
    table = "\n".join(lines[6:])
    assert re.search(r"difix\.reference_from=overlap.*\+1\.000", table)
    assert re.search(r"difix\.reference_from=previous.*-0\.500", table)
    assert (study / "params.yaml").read_bytes() == before
    assert run(study, "git", "status", "--short") == ""
    again = ablate(study).splitlines()
    assert again[1] == "experiments to run: 0 of 3, 3 finished before"
    assert (
        "\n".join(again[5:]) == table.partition("experiment ")[0] or table.splitlines()[-1] in again
    )
    assert len(ran.read_text().splitlines()) == 10, "nothing ran again"


@pytest.mark.slow  # an experiment of DVC
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workspace_is_as_before_when_an_arm_is_stopped(study: Path, number: int) -> None:
    """DVC writes an arm's params into the workspace before it copies it."""
    before = (study / "params.yaml").read_bytes()
    arms = "difix.reference_from=nearest,overlap"
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.ablate", arms], cwd=study, env=environment_of(study)
    )
    until = time.monotonic() + 120
    while (study / "params.yaml").read_bytes() == before and time.monotonic() < until:
        time.sleep(0.002)
    assert (study / "params.yaml").read_bytes() != before, "the moment to stop it has passed"
    process.send_signal(number)
    assert process.wait(timeout=120) == PREEMPTED
    assert (study / "params.yaml").read_bytes() == before
    assert run(study, "git", "status", "--short") == ""
    assert "experiments to run: " in ablate(study)
