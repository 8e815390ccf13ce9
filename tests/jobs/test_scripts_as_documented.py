"""The user's commands, as they stand in the description of the scripts, on a real cluster.

In a checkout whose folder `examples` is a link to slurm/, beside small data in the folders that the
commands name. The recipe is the full-size one, its numbers of steps scaled.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loopback import Cluster
from project import ROOT
from small_capture import cameras, write_capture

from stages.run.files import folder_hash, read_json, read_tsv
from stages.scenes.demo.static_scene import write_static_scene
from stages.scenes.images import read_image, write_png
from stages.scenes.static.config import StaticDemoConfig

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

# On top of studies/full.yaml: 30 steps instead of 30000, thresholds for small smooth images.
TINY = """
train: {backend: cpu, steps_scaler: 0.001, max_gaussians: 400}
capture_train: {align_steps: 0}
capture_evaluate: {backend: cpu, align_steps: 0}
static:
  lens_model: pinhole
  lf_inner: 1
  peak_threshold: 0.003
  ratio_test: 0.85
  max_reprojection_error_px: 2.0
  covi_device: cpu
"""
# Parts of the description that runs follow; each is also in docs/cluster.md, with slurm/.
TOGETHER = """
sbatch examples/single_training.slurm ../gs7/input_data/IMG_0597/inner_02 results/IMG_0597_tuned
sbatch slurm/single_training.slurm ../gs7/input_data/dog/vision-pro-dog results/dog_right RIGHT
sbatch examples/dual_training.slurm ../gs7/input_data/vision-pro-dog2 "" ../gs7/input_data/dog/eval/
PREP_JOB=$(sbatch --parsable examples/static_preprocessing.slurm ../gs7/dataset/dog)
sbatch --dependency=afterok:$PREP_JOB examples/static_training.slurm ../gs7/dataset/dog
"""
FILTERED = """
sbatch slurm/dual_training.slurm ../gs7/input_data/vision-pro-dog2 RIGHT ../gs7/input_data/dog/eval/
"""
CAMERAS = ("monocular", "iphone", "stereo", "lightfield")
# The description's list, flag by flag.
FLAGS = """
--disable_viewer --data_factor 1 --save_ply --pose_opt --antialiased
--eval_steps 3000 7000 30000
--ply_steps 3000 7000 30000
--strategy.reset_every 100000
--strategy.pause_refine_after_reset 0
--strategy.prune_scale3d 0.22
--strategy.prune_scale2d 0.12
--strategy.prune_opa 0.006
--strategy.grow_grad2d 0.00035
--strategy.grow_scale3d 0.012
--strategy.refine_stop_iter 26000
--strategy.refine_scale2d_stop_iter 26000
--scale_reg 0.0005
--scales_lr 0.003
--means_lr 0.00012
"""


def as_user_wrote(text: str) -> list[str]:
    """Each flag with its values, a switch with `true`."""
    flags = [f"--{part.strip()}" for part in text.split("--")[1:]]
    return [flag if " " in flag else f"{flag} true" for flag in flags]


class User:
    """A checkout, and a shell in it."""

    def __init__(self, home: Path, slurm: Cluster):
        self.folder, self.data, self.slurm = home / "checkout", home / "gs7", slurm
        self.folder.mkdir(parents=True)
        for name in ("slurm", "studies"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy(ROOT / "params.yaml", self.folder)
        (self.folder / "examples").symlink_to("slurm")
        (self.folder / "tiny.yaml").write_text(TINY)
        (self.folder / "cpu.yaml").write_text("train: {backend: cpu}")
        (self.folder / "auto.yaml").write_text("train: {backend: auto}")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        self.env = kept | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]]),
            # The package from where it lies: its compiled kernels are cached by path.
            "PYTHONPATH": str(ROOT),
            "SLURM_CONF": str(slurm.conf),
            "USER": subprocess.run(["id", "-un"], text=True, capture_output=True).stdout.strip(),
            "RECIPE": "studies/full.yaml:tiny.yaml",
            "TORCH_HOME": str(home / "no_torch_cache"),
        }

    def type(self, text: str, **env: str) -> list[str]:
        """Run lines in a shell; the jobs that they sent."""
        shell = ["bash", "-euc", text]
        done = subprocess.run(
            shell, cwd=self.folder, env=self.env | env, text=True, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return [line.split()[-1] for line in done.stdout.splitlines()]

    def state(self, job: str) -> str:
        shown = self.slurm.run("scontrol", "show", "job", "-o", job)
        return shown.partition("JobState=")[2].split()[0]

    def log(self, job: str, kind: str = "out") -> str:
        return (self.folder / f"slurm_logs/{job}.{kind}").read_text()

    def result(self, name: str) -> Path:
        return self.folder / "results" / name


def write_data(gs7: Path) -> None:
    """Small data in the folders that the description names."""
    captures = gs7 / "input_data"
    for k, name in enumerate(("IMG_0597/inner_02", "dog/vision-pro-dog", "vision-pro-dog2")):
        write_capture(captures / name, cameras(shift=0.01 * k))
    write_capture(captures / "dog/eval", cameras(("a.png", "b.png"), 0.05))
    config = StaticDemoConfig(lightfield_side=5, eval_frames=4, samples=1)
    write_static_scene("static_pair02_talk", config, gs7 / "dataset/dog")


@pytest.fixture(scope="module")
def user(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> User:
    """After all of the commands; those of `jobs` run at the same time."""
    user = User(tmp_path_factory.mktemp("user"), slurm)
    write_data(user.data)
    user.jobs = user.type(TOGETHER)
    slurm.wait(400)
    combined = user.result("vision-pro-dog2/combined/train/cameras")
    before = folder_hash(combined)
    user.jobs += user.type(FILTERED)
    slurm.wait(200)
    assert folder_hash(combined) == before, "the same images give the same result again"
    return user


def test_all_of_it_ends_well(user: User) -> None:
    single, right, dual, training, filtered = user.jobs
    tasks = [f"{single}_0", f"{right}_0"]
    tasks += [f"{job}_{task}" for job in (dual, filtered) for task in (0, 1)]
    tasks += [f"{training}_{task}" for task in range(4)]
    for task in tasks:
        assert user.state(task) == "COMPLETED", user.log(task) + user.log(task, "err")
        assert (user.folder / f"slurm_logs/{task}.out").stat().st_size
    # No `dvc repro weights` has run in this checkout; scripts do without.
    assert "LPIPS is empty" in user.log(f"{training}_0", "err")


def test_single_training_writes_its_result_folder(user: User) -> None:
    record = read_json(user.result("IMG_0597_tuned") / "train/capture.json")
    assert (record["name"], record["match_string"]) == ("inner_02", "")
    record = read_json(user.result("dog_right") / "train/capture.json")
    assert (record["name"], record["match_string"]) == ("vision-pro-dog", "RIGHT")
    assert all("RIGHT" in name for name in record["train"])
    for step in (3, 7, 30):
        assert (user.result("IMG_0597_tuned") / f"train/point_cloud_{step}.ply").is_file()
    evaluations = read_json(user.result("IMG_0597_tuned") / "train/fit.json")["evaluations"]
    assert {row["step"] for row in evaluations} == {3, 7, 30}


def test_dual_training_writes_the_tree_of_the_description(user: User) -> None:
    combined = user.result("vision-pro-dog2/combined")
    assert (combined / "train/gaussians.safetensors").is_file()
    assert read_json(combined / "eval_on_eval/metrics.json")["views"] == 2
    assert "no MATCH_STRING" in user.log(f"{user.jobs[2]}_1")
    for variant in ("combined", "filtered"):
        folder = user.result(f"vision-pro-dog2/{variant}")
        assert {path.name for path in folder.iterdir()} == {"train", "eval_on_eval"}
    assert sorted(path.name for path in user.result("vision-pro-dog2").iterdir()) == [
        "combined",
        "filtered",
    ]
    record = read_json(user.result("vision-pro-dog2/filtered") / "train/capture.json")
    assert all("RIGHT" in name for name in record["train"])


def test_static_scripts_write_the_trees_of_the_description(user: User) -> None:
    shared = user.data / "dataset/dog/static/shared"
    names = {path.name for path in shared.iterdir()}
    assert names == {
        ".prep_complete",
        "images",
        "sparse",
        "subsets",
        "covisible",
        "alignments",
        "metadata",
        "splits",
    }
    subsets = {path.name for path in (shared / "subsets").iterdir()}
    assert subsets == {*CAMERAS, "iphone_eval"}
    metadata = {path.name for path in (shared / "metadata").iterdir()}
    assert metadata == {"summary.json", "mapping.json"}
    assert {path.stem for path in (shared / "splits").glob("*.txt")} == subsets
    for camera in CAMERAS:
        assert len(list((shared / "covisible" / camera / "1x/val").glob("*.png"))) == 4
        assert (shared / f"alignments/{camera}_to_eval.npz").is_file()
        result = user.result(f"static/dog/{camera}")
        assert (result / "checkpoints/gaussians.safetensors").is_file()
        assert (result / "checkpoints/point_cloud.ply").is_file()
        assert (result / "eval_on_iphone_eval/metrics.json").is_file()


def test_every_training_shows_and_stores_its_flags(user: User) -> None:
    single, right, dual, training, _ = user.jobs
    logs = [f"{single}_0", f"{right}_0", f"{dual}_0", *(f"{training}_{k}" for k in range(4))]
    for log in logs:
        assert "  --means_lr 0.00012 " in user.log(log)
    results = [user.result(name) / "train" for name in ("IMG_0597_tuned", "dog_right")]
    results += [user.result(f"static/dog/{camera}/checkpoints") for camera in CAMERAS]
    for result in results:
        rows = {row["flag"]: row for row in read_tsv(result / "flags.tsv")}
        assert list(rows)[: len(as_user_wrote(FLAGS))] == [
            flag.split()[0] for flag in as_user_wrote(FLAGS)
        ]
        assert rows["--eval_steps"]["value"] == "3 7 30"
        assert rows["--strategy.prune_scale3d"]["effect"].startswith("no effect: ")
        assert "reached" in rows["train.max_gaussians"]["effect"]


def test_full_recipe_is_trained_whatever_params_say_and_can_be_watched_and_cancelled(
    user: User,
) -> None:
    """The commands of monitoring, on a training of 30000 steps."""
    sent = "sbatch slurm/single_training.slurm ../gs7/input_data/IMG_0597/inner_02 results/full"
    (job,) = user.type(sent, RECIPE="studies/full.yaml:cpu.yaml")
    log = user.folder / f"slurm_logs/{job}_0.out"
    user.slurm.until(lambda: log.is_file())
    with subprocess.Popen(
        ["bash", "-c", f"exec timeout 120 tail -f slurm_logs/{job}_0.out"],
        cwd=user.folder,
        text=True,
        stdout=subprocess.PIPE,
    ) as tail:
        lines = []
        for line in tail.stdout:
            lines.append(line.strip())
            if line.strip().startswith("train.max_gaussians"):
                break
        tail.terminate()
    shown = [" ".join(line.split("  ")[0].split()) for line in lines if line.startswith("--")]
    expected = as_user_wrote(FLAGS)
    assert shown[: len(expected)] == expected
    assert shown[len(expected) :] == ["--max_steps 30000"]
    queue = subprocess.run(
        ["bash", "-euc", "squeue -u $USER"], env=user.env, text=True, capture_output=True
    ).stdout
    assert f"{job}_0" in queue
    assert user.type(f"scancel {job}") == []
    user.slurm.wait(30)
    assert user.state(f"{job}_0") == "CANCELLED"
    assert not (user.result("full") / "train").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the jobs of this cluster see a GPU")
def test_job_with_a_gpu_that_torch_does_not_see_fails(user: User) -> None:
    sent = "sbatch slurm/single_training.slurm ../gs7/input_data/IMG_0597/inner_02 results/gpu"
    recipe = "studies/full.yaml:tiny.yaml:auto.yaml"
    without = sent.replace("sbatch", "sbatch --gres=none").replace("gpu", "cpu")
    given, without = user.type(f"{sent}; {without}", RECIPE=recipe)
    user.slurm.wait(200)
    assert user.state(f"{without}_0") == "COMPLETED", user.log(f"{without}_0", "err")
    assert user.state(f"{given}_0") == "FAILED"
    message = user.log(f"{given}_0", "err")
    assert "train.backend: auto, and this job was given a GPU (SLURM_GPUS_ON_NODE=1)" in message
    assert "--gres=none" in message


def test_datasets_of_one_name_are_refused_by_every_script(user: User) -> None:
    """The second scene of such a layout, <scene>/<modality>/{train,test}, replaces nothing."""
    write_capture(user.data.parent / "gs8/horse/vision-pro-dog2", cameras(shift=0.3))
    other = user.data.parent / "gs8/dataset/dog"
    shutil.copytree(user.data / "dataset/dog", other, ignore=shutil.ignore_patterns("shared"))
    for path in other.rglob("*.png"):
        write_png(path, 0.97 * read_image(path))
    model = user.data / "dataset/dog/static/shared/sparse"
    shutil.copytree(model, other / "static/sparse")
    data = "../gs8/horse/vision-pro-dog2"
    before = folder_hash(user.folder / "results")
    shared = folder_hash(user.data / "dataset/dog/static/shared")
    prepare = "sbatch --parsable slurm/static_preprocessing.slurm ../gs8/dataset/dog"
    train = "slurm/static_training.slurm ../gs8/dataset/dog"
    second, single, prepared, refused, separate = user.type(
        f"sbatch slurm/dual_training.slurm {data} RIGHT; "
        f"sbatch slurm/single_training.slurm {data} results/IMG_0597_tuned; "
        f"P=$(SKIP_VGGT=1 {prepare}); echo $P; "
        f"sbatch -d afterok:$P {train}; "
        f"RESULT_ROOT=elsewhere SKIP_EVAL=1 sbatch -d afterok:$P --array=0-0 {train}"
    )
    user.slurm.wait(300)
    assert user.state(f"{prepared}_0") == "COMPLETED", user.log(f"{prepared}_0", "err")
    assert user.state(f"{separate}_0") == "COMPLETED", user.log(f"{separate}_0", "err")
    tasks = [f"{second}_0", f"{second}_1", f"{single}_0", *(f"{refused}_{k}" for k in range(4))]
    for task in tasks:
        assert user.state(task) == "FAILED", task
        message = user.log(task, "err")
        assert "holds the result of a dataset" in message
        assert "RESULT_ROOT" in message
    assert folder_hash(user.folder / "results") == before
    assert folder_hash(user.data / "dataset/dog/static/shared") == shared
    assert (user.folder / "elsewhere/dog/monocular/checkpoints").is_dir()
