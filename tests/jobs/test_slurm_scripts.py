"""The ready scripts of slurm/ on a real cluster: their arguments, variables, logs and resources.

A `python` that writes down how it was called stands in front of the real one.
"""

import shutil
from pathlib import Path

import pytest
from loopback import Cluster
from project import ROOT, Project, Submit

FULL = "|--recipe|studies/full.yaml"
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

RECORDER = """#!/bin/bash
printf '%s|' "$@" >> "$CALLS/$SLURM_ARRAY_TASK_ID"
echo >> "$CALLS/$SLURM_ARRAY_TASK_ID"
echo "task $SLURM_ARRAY_TASK_ID on GPU $CUDA_VISIBLE_DEVICES"
echo warning >&2
[[ -z ${STOPS:-} || -n ${SLURM_RESTART_COUNT:-} ]] && exit "${ENDS:-0}"
trap 'exit 75' TERM
touch "$CALLS/started"
sleep 60 & wait
"""


class Scripts:
    """The scripts in a folder of their own, sent by plain sbatch."""

    def __init__(self, folder: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.slurm, self.calls = folder, slurm, folder / "calls"
        shutil.copytree(ROOT / "slurm", folder / "slurm")
        self.calls.mkdir()
        stub = folder / "bin" / "python"
        stub.parent.mkdir()
        stub.write_text(RECORDER)
        stub.chmod(0o755)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
        monkeypatch.setenv("PATH", str(stub.parent), prepend=":")
        monkeypatch.setenv("CALLS", str(self.calls))

    def send(self, name: str, *arguments: str) -> str:
        """Send a script and wait for its end; its job."""
        words = ["sbatch", "--parsable", f"slurm/{name}.slurm", *arguments]
        job = self.slurm.run(*words).strip()
        self.slurm.wait()
        return job

    def called(self, task: int = 0) -> list[str]:
        """What `python` was called with in a task, a line a call."""
        path = self.calls / str(task)
        return [line.rstrip("|") for line in path.read_text().splitlines()] if path.exists() else []

    def show(self, job: str) -> str:
        """What SLURM tells of a job."""
        return self.slurm.run("scontrol", "show", "job", "-o", job)


@pytest.fixture
def scripts(tmp_path: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(tmp_path, slurm, monkeypatch)


def test_single_training(scripts: Scripts) -> None:
    job = scripts.send("single_training", "../in/dog dir", "results/dog", "RIGHT")
    assert scripts.called() == [f"-m|stages.capture_train|../in/dog dir|results/dog|RIGHT{FULL}"]
    log = (scripts.folder / f"slurm_logs/{job}_0.out").read_text()
    assert log.startswith("task 0 on GPU ")
    assert log.strip()[-1].isdecimal(), "one GPU"
    assert (scripts.folder / f"slurm_logs/{job}_0.err").read_text() == "warning\n"
    told = scripts.show(job)
    for wanted in ("TimeLimit=12:00:00", "MinMemoryNode=32G", "CPUs/Task=2", "gres:gpu:1"):
        assert wanted in told


def test_wrong_number_of_arguments_fails_with_the_usage(scripts: Scripts) -> None:
    job = scripts.send("single_training", "data")
    assert "JobState=FAILED" in scripts.show(job)
    told = (scripts.folder / f"slurm_logs/{job}_0.err").read_text()
    assert told == "usage: sbatch slurm/single_training.slurm DATA_DIR RESULT_DIR [MATCH_STRING]\n"
    assert scripts.called() == []


def test_dual_training(scripts: Scripts) -> None:
    (scripts.folder.parent / "in/dog/eval").mkdir(parents=True, exist_ok=True)
    scripts.send("dual_training", "../in/vision-pro-dog2/", "RIGHT", "../in/dog/eval/")
    data, results = "../in/vision-pro-dog2/", "results/vision-pro-dog2"
    assert scripts.called(0) == [
        f"-m|stages.capture_train|{data}|{results}/combined{FULL}",
        f"-m|stages.capture_evaluate|{results}/combined|../in/dog/eval/{FULL}",
    ]
    assert scripts.called(1) == [
        f"-m|stages.capture_train|{data}|{results}/filtered|RIGHT{FULL}",
        f"-m|stages.capture_evaluate|{results}/filtered|../in/dog/eval/{FULL}",
    ]


def test_dual_training_evaluates_by_a_fixer_that_is_there(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scripts.folder.parent / "in/dog/eval").mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("FIXER", "tuned")
    job = scripts.send("dual_training", "../in/dog", "", "../in/dog/eval")
    error = (scripts.folder / f"slurm_logs/{job}_0.err").read_text()
    assert "FIXER=tuned: no folder data/difix/tuned" in error
    assert scripts.called(0) == []
    (scripts.folder / "data/difix/tuned").mkdir(parents=True)
    scripts.send("dual_training", "../in/dog", "", "../in/dog/eval")
    words = "../in/dog|results/dog/combined|../in/dog/eval|--fixer|tuned"
    assert scripts.called(0)[-1] == f"-m|stages.capture_fix|{words}{FULL}"


def test_dual_training_without_a_word_to_filter_by(scripts: Scripts) -> None:
    (scripts.folder.parent / "in/eval").mkdir(parents=True, exist_ok=True)
    job = scripts.send("dual_training", "../in/dog", "", "../in/eval")
    assert len(scripts.called(0)) == 2
    assert scripts.called(1) == []
    assert "no MATCH_STRING" in (scripts.folder / f"slurm_logs/{job}_1.out").read_text()
    assert scripts.show(job).count("JobState=COMPLETED") == 2


def test_static_scripts_in_a_chain_with_their_variables(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "PREP_ROOT": "/out/shared dir",
        "LF_INNER": "2",
        "LF_CALIB": "/cal/caldata.tar",
        "LF_TO_COLMAP": "/bin/lf.py",
        "VGGT_STAGE": "ba",
        "VGGT_CACHE": "/tmp/cache",
        "SKIP_VGGT": "1",
        "FORCE": "0",
        "RESULT_ROOT": "/scratch/static",
        "TRAIN_TEST_EVERY": "1",
        "EVAL_TEST_EVERY": "2",
        "COVI_CHUNK": "32",
        "COVI_MICRO_CHUNK": "8",
        "COVI_DEVICE": "cuda",
        "SKIP_TRAIN": "1",
        "SKIP_EVAL": "",
        "LF_DOWNSCALE": "3",
        "COPY_MODE": "hardlink",
        "CLOSEST_EVAL_COUNT": "5",
        "COVI_NUM_MIN_FRAMES": "2",
        "REBUILD_COVISIBLE": "1",
        "GSPLAT_STATS": "1",
        "RECIPE": "",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (scripts.folder / "my fixer").mkdir()
    monkeypatch.setenv("FIXER", "my fixer")
    prepare = scripts.send("static_preprocessing", "../data/dog")
    assert scripts.called() == [
        "-m|stages.static_prepare|../data/dog|--prep-root|/out/shared dir|-S|static.lf_inner=2"
        "|-S|static.lf_downscale=3"
        "|--set-text|static.lf_calib=/cal/caldata.tar|--set-text|static.lf_to_colmap=/bin/lf.py"
        "|-S|static.vggt_stage=ba|--set-text|runtime.static.vggt_cache=/tmp/cache|-S|static.skip_vggt=true"
        "|-S|runtime.static.force=false|-S|runtime.static.copy_mode=hardlink"
    ]
    assert "NodeList=h100" in scripts.show(prepare)
    (scripts.calls / "0").unlink()
    words = ["sbatch", "--parsable", f"--dependency=afterok:{prepare}"]
    scripts.slurm.run(*words, "slurm/static_training.slurm", "../data/dog")
    scripts.slurm.wait()
    options = (
        "--prep-root|/out/shared dir|--result-root|/scratch/static|-S|static.train_test_every=1"
        "|-S|static.eval_test_every=2|-S|static.nearest_eval=5|-S|static.covi_min_views=2"
        "|-S|static.covi_device=cuda|-S|runtime.static.covi_chunk=32"
        "|-S|runtime.static.covi_micro_chunk=8|-S|runtime.static.rebuild_covisible=true"
        "|-S|runtime.static.skip_train=true|-S|runtime.evaluate.gsplat_stats=true"
    )
    for task, camera in enumerate(("monocular", "iphone", "stereo", "lightfield")):
        rest = f"../data/dog|--camera|{camera}|{options}"
        assert scripts.called(task) == [
            f"-m|stages.static_train|{rest}",
            f"-m|stages.static_evaluate|{rest}",
            f"-m|stages.static_fix|{rest}|--fixer|my fixer",
        ]


def test_failed_training_is_not_evaluated(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS", "3")
    job = scripts.send("static_training", "dog")
    assert [len(scripts.called(task)) for task in range(4)] == [1] * 4
    assert scripts.show(job).count("JobState=FAILED") == 4
    assert "ExitCode=3:0" in scripts.show(job)


def test_tuning_takes_all_gpus_and_comes_back_after_a_stop(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOPS", "1")
    job = scripts.slurm.run("sbatch", "--parsable", "slurm/difix_tune.slurm").strip()
    scripts.slurm.until((scripts.calls / "started").exists)
    scripts.slurm.run("scancel", "--signal=USR1", "--batch", f"{job}_0")
    scripts.slurm.wait()
    assert scripts.called() == ["-m|stages.submit|--local|--jobs|1|tune"] * 2
    log = (scripts.folder / f"slurm_logs/{job}_0.out").read_text()
    assert log.count("task 0 on GPU 0,1") == 2
    assert "stopped and queued again" in log
    assert "JobState=COMPLETED Reason=None Dependency=(null) Requeue=1 Restarts=1" in " ".join(
        scripts.show(job).split()
    )


def test_stop_while_it_is_evaluated_does_not_train_again(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = scripts.folder / "bin" / "python"
    stub.write_text(stub.read_text().replace("[[ -z", "[[ $2 == *_train || -z"))
    monkeypatch.setenv("STOPS", "1")
    (scripts.folder / "eval").mkdir()
    words = ["sbatch", "--parsable", "--array=0-0", "slurm/dual_training.slurm", "dog", "", "eval"]
    job = scripts.slurm.run(*words).strip()
    scripts.slurm.until((scripts.calls / "started").exists)
    scripts.slurm.run("scancel", "--signal=USR1", "--batch", f"{job}_0")
    scripts.slurm.wait()
    evaluated = f"-m|stages.capture_evaluate|results/dog/combined|eval{FULL}"
    trained = f"-m|stages.capture_train|dog|results/dog/combined{FULL}"
    assert scripts.called() == [trained, evaluated, evaluated]
    log = (scripts.folder / f"slurm_logs/{job}_0.out").read_text()
    assert "done before the stop: python -m stages.capture_train dog" in log
    assert not list((scripts.folder / ".work/slurm").iterdir())


def test_script_sent_from_another_folder(
    scripts: Scripts, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("else") / "where it's (ü)"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("PREP_ROOT", "shared")
    monkeypatch.setenv("LF_CALIB", "cal (2), new.tar")
    script = str(scripts.folder / "slurm" / "static_preprocessing.slurm")
    job = scripts.slurm.run("sbatch", "--parsable", script, "dog").strip()
    scripts.slurm.wait()
    assert scripts.called() == [
        f"-m|stages.static_prepare|{elsewhere}/dog{FULL}|--prep-root|{elsewhere}/shared"
        f"|--set-text|static.lf_calib={elsewhere}/cal (2), new.tar"
    ]
    assert (elsewhere / f"slurm_logs/{job}_0.out").read_text().startswith("task 0 on GPU")
    copy = elsewhere / "mine.slurm"
    shutil.copy(script, copy)
    job = scripts.slurm.run("sbatch", "--parsable", str(copy), "dog").strip()
    scripts.slurm.wait()
    assert "JobState=FAILED" in scripts.show(job)
    told = (elsewhere / f"slurm_logs/{job}_0.err").read_text()
    assert told == "no checkout of Splatfix: cd to it before sbatch, or set SPLATFIX_ROOT\n"


def test_configured_nodes_and_options_reach_a_script(
    sent: Project, submit: Submit, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sent.folder)
    shutil.copytree(ROOT / "slurm", "slurm")
    default = sent.slurm_config().default.model_dump()
    default |= {"exclude": ["bad1", "gpu1", "h100"], "extra": ["--comment=mine"]}
    sent.change(slurm={"default": default})
    code, output = submit("script", "slurm/single_training.slurm", "data", "", "")
    assert code == 0
    scripts.slurm.wait()
    told = scripts.show(output.strip())
    assert "NodeList=gpu2" in told
    assert "Comment=mine" in told
    assert scripts.called() == [f"-m|stages.capture_train|data|||{FULL[1:]}"]
