"""A user's static scenes through the ready scripts on a real cluster, with real training."""

import os
import shutil
from pathlib import Path

import pytest
from loopback import Cluster
from project import ROOT
from user_trees import SCENES, write_scene, write_shared

from stages.run import layout
from stages.run.files import file_hash, read_json, write_json

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

CAMERAS = ("monocular", "iphone", "stereo", "lightfield")
TINY = """
train: {backend: cpu, max_steps: 6, eval_steps: [], ply_steps: [], save_steps: [], sh_degree: 0}
static: {lens_model: pinhole, lf_inner: 1, peak_threshold: 0.003, ratio_test: 0.85,
    max_reprojection_error_px: 2.0}
"""


class Scripts:
    """A checkout with the scripts and stages, and jobs that are sent from it by plain sbatch."""

    def __init__(self, folder: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.slurm = folder, slurm
        for name in ("stages", "studies", "params.yaml", ".venv"):
            (folder / name).symlink_to(ROOT / name)
        shutil.copytree(ROOT / "slurm", folder / "slurm")
        (folder / "tiny.yaml").write_text(TINY)
        absent = {"found": False, "from": None, "sha256": None, "reason": "no network"}
        write_json(folder / layout.WEIGHTS / "weights.json", {"alex": absent})
        monkeypatch.chdir(folder)
        values = {"SLURM_CONF": str(slurm.conf), "RECIPE": "tiny.yaml", "COVI_DEVICE": "cpu"}
        for name, value in (values | {"PYTHONPATH": str(folder)}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("SPLATFIX_WORK", raising=False)

    def send(self, script: str, scene: str, *options: str, **variables: str) -> str:
        """Send a script, wait for its end and return its job."""
        words = ["env", *(f"{name}={value}" for name, value in variables.items())]
        words += ["sbatch", "--parsable", *options, f"slurm/{script}.slurm", scene]
        job = self.slurm.run(*words).strip()
        self.slurm.wait(timeout_s=500)
        return job

    def logs(self, job: str) -> str:
        """What all tasks of a job wrote."""
        return "".join(p.read_text() for p in sorted((self.folder / "slurm_logs").glob(f"{job}_*")))

    def has_completed(self, job: str, tasks: int = 1) -> bool:
        """Whether all tasks ended with exit code 0."""
        told = self.slurm.run("scontrol", "show", "job", "-o", job)
        return told.count("JobState=COMPLETED") == tasks


@pytest.fixture
def scripts(tmp_path: Path, slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Scripts:
    return Scripts(tmp_path, slurm, monkeypatch)


def contents(folder: Path, *but: str) -> dict[str, str]:
    """Hash of every file below a folder, except below folders of some names."""
    found = {}
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in but]
        found |= {str(Path(root, name)): file_hash(Path(root, name)) for name in files}
    return found


def test_two_scenes_of_a_user_through_the_static_scripts(scripts: Scripts) -> None:
    """One without a shared folder, one with that of another program; nothing is overwritten."""
    data = scripts.folder.parent / "gs7 (ü)" / "dataset"
    truth = {name: write_scene(data / name, source) for name, source in SCENES.items()}
    shared = write_shared(data / "cat", truth["cat"])
    before = contents(data)

    job = scripts.send("static_preprocessing", str(data / "dog"), COPY_MODE="symlink")
    assert scripts.has_completed(job), scripts.logs(job)
    assert "dog: registered 19 of 19 images" in scripts.logs(job)
    assert "19 of 19 images are symlinks" in scripts.logs(job)
    job = scripts.send("static_preprocessing", str(data / "cat"))
    assert "was prepared by another program" in scripts.logs(job)
    assert "SKIP_VGGT=1" in scripts.logs(job)
    assert not scripts.has_completed(job)
    job = scripts.send("static_preprocessing", str(data / "cat"), SKIP_VGGT="1")
    assert scripts.has_completed(job), scripts.logs(job)

    job = scripts.send("static_training", str(data / "dog"))
    assert scripts.has_completed(job, 4), scripts.logs(job)
    job = scripts.send("static_training", str(data / "cat"), "--array=2-2")
    assert scripts.has_completed(job), scripts.logs(job)
    results = scripts.folder / "results" / "static"
    for scene, cameras in (("dog", CAMERAS), ("cat", ("stereo",))):
        assert sorted(path.name for path in (results / scene).iterdir()) == sorted(cameras)
        for camera in cameras:
            evaluated = results / scene / camera / "eval_on_iphone_eval"
            metrics = read_json(evaluated / "metrics.json")
            assert metrics["views"] == 4
            assert ("another program" in metrics["protocol"]) == (scene == "cat")
    dog = data / "dog" / "static" / "shared"
    assert (dog / "alignments" / "stereo_to_eval.npz").is_file()
    assert len(list((dog / "covisible" / "stereo" / "1x" / "val").glob("*.png"))) == 4
    after = contents(data, "splatfix") | contents(shared / "splatfix")
    assert {path: after.get(path) for path in before} == before
    added = {Path(path) for path in after.keys() - before.keys()}
    ours = (dog, shared / "splatfix")
    assert all(any(path.is_relative_to(folder) for folder in ours) for path in added)


def test_wrong_input_ends_a_job_with_what_was_looked_for(scripts: Scripts) -> None:
    scene = scripts.folder / "dataset" / "dog"
    job = scripts.send("static_preprocessing", str(scene))
    assert f"{scene}/static: no such folder" in scripts.logs(job)
    (scene / "static").mkdir(parents=True)
    job = scripts.send("static_preprocessing", str(scene), LF_CALIB="caldata.tar")
    assert "static.lf_calib (LF_CALIB): caldata.tar: no such file" in scripts.logs(job)
    job = scripts.send("static_preprocessing", str(scene))
    for place in ("static/iphone_eval/", "static/iphone-eval/", "iphone_eval/", "iphone-eval/"):
        assert f"{scene}/{place}" in scripts.logs(job)
    for kind in CAMERAS[:3]:
        assert f"no image for {kind}" in scripts.logs(job)
    assert "ExitCode=2:0" in scripts.slurm.run("scontrol", "show", "job", "-o", job)
