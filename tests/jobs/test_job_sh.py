"""slurm/job.sh without a cluster: stand-ins for SLURM and for `python` write what they get.

The same on a real cluster: test_slurm_scripts.py.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from project import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "slurm").glob("*.slurm"))
PYTHON = """#!/bin/bash
printf '%s|' "$@" >> "$CALLS"; echo "$PWD" >> "$CALLS"
[[ $2 == "${FAILS:-}" ]] && exit 3
[[ $2 == "${STOPS:-}" ]] || exit 0
trap 'kill $!; exit 75' TERM
sleep 60 & touch "$CALLS.started"; wait
"""


class Job:
    """A checkout that holds the scripts alone, and how they are begun."""

    def __init__(self, folder: Path):
        self.folder, self.calls, programs = folder, folder / "calls", folder / "bin"
        shutil.copytree(ROOT / "slurm", folder / "checkout" / "slurm")
        programs.mkdir()
        self.program("python", PYTHON)
        self.program("scontrol", '#!/bin/bash\necho "$@" >> "$CALLS.scontrol"\n')
        self.program("squeue", "#!/bin/bash\nprintf 'RUNNING\\n%.0s' $(seq $LINES)\n")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        self.env = kept | {"PATH": path, "CALLS": str(self.calls), "VIRTUAL_ENV": "x", "LINES": "1"}

    def program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def start(
        self, script: str | Path, *words: str, cwd: Path | None = None, **env: str
    ) -> subprocess.Popen[str]:
        checkout = self.folder / "checkout"
        return subprocess.Popen(
            ["bash", checkout / "slurm" / script, *words],
            cwd=cwd or checkout,
            env=self.env | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, script: str | Path, *words: str, **options) -> tuple[int, str]:
        """Exit code and output."""
        begun = self.start(script, *words, **options)
        output = begun.communicate(timeout=30)[0]
        return begun.returncode, output

    def called(self) -> list[str]:
        """Words and folder of each call of `python` since the last look."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.mark.parametrize("lines", [1, 2])
def test_stopped_last_task_alone_is_queued_again(job: Job, lines: int) -> None:
    """Its job number is that of the array, whose other tasks may still run."""
    ids = {"SLURM_JOB_ID": "36", "SLURM_ARRAY_JOB_ID": "36", "SLURM_ARRAY_TASK_ID": "1"}
    begun = job.start(
        "dual_training.slurm",
        "room",
        "RIGHT",
        STOPS="stages.capture_train",
        LINES=str(lines),
        **ids,
    )
    started = Path(f"{job.calls}.started")
    end = time.monotonic() + 30
    while not started.exists() and time.monotonic() < end:
        time.sleep(0.02)
    begun.send_signal(signal.SIGUSR1)
    output = begun.communicate(timeout=30)[0]
    assert "queued again" in output
    assert begun.returncode == 75
    assert Path(f"{job.calls}.scontrol").read_text() == "requeue 36_1\n"


def test_what_another_job_of_this_number_had_done_is_done_again(job: Job) -> None:
    ids = {"SLURM_JOB_ID": "4711", "SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "0"}
    words = ("dual_training.slurm", "old", "", "eval")
    code, _ = job.run(*words, FAILS="stages.capture_evaluate", **ids)
    assert (code, len(job.called())) == (3, 2)
    checkout = job.folder / "checkout"
    code, output = job.run(*words, SLURM_RESTART_COUNT="1", **ids)
    assert [line.split("|")[1] for line in job.called()] == ["stages.capture_evaluate"]
    assert "done before the stop: python -m stages.capture_train old" in output
    assert not list((checkout / ".work/slurm").iterdir()), "nothing is left of a job that ended"
    for words, env in (
        (("single_training.slurm", "new", "result"), {}),
        (("dual_training.slurm", "old", "", "eval"), {}),
        (("single_training.slurm", "new", "result"), {"SLURM_RESTART_COUNT": "1"}),
    ):
        job.run("dual_training.slurm", "old", "", "e", FAILS="stages.capture_evaluate", **ids)
        job.called()
        code, output = job.run(*words, **ids, **env)
        assert code == 0, output
        assert "stages.capture_train" in job.called()[0], f"{words} {env}"


def test_nothing_is_passed_over_without_a_cluster(job: Job) -> None:
    for _ in range(2):
        assert job.run("single_training.slurm", "data", "result")[0] == 0
        assert len(job.called()) == 1
    assert not (job.folder / "checkout/.work/slurm").exists()


STRANGE = ["Zürich (2)", "a,b", "a=b", "#1", "it's", 'say "x"', "x\\", "$(touch F)", "*", "${HOME}"]


@pytest.mark.parametrize("name", STRANGE)
def test_values_arrive_as_they_are(job: Job, name: str) -> None:
    code, output = job.run("single_training.slurm", name, f"out/{name}", name)
    assert code == 0, output
    (call,) = job.called()
    assert call.startswith(f"-m|stages.capture_train|{name}|out/{name}|{name}|")
    paths = dict.fromkeys(("LF_CALIB", "LF_TO_COLMAP", "VGGT_CACHE", "PREP_ROOT"), f"/in/{name}")
    code, output = job.run("static_preprocessing.slurm", name, **paths)
    assert code == 0, output
    (call,) = job.called()
    for wanted in (f"--prep-root|/in/{name}|", f"--set-text|runtime.static.vggt_cache=/in/{name}|"):
        assert wanted in call
    code, output = job.run(
        "static_training.slurm", name, SLURM_ARRAY_TASK_ID="2", RESULT_ROOT=f"/in/{name}"
    )
    assert code == 0, output
    assert all(f"--result-root|/in/{name}|" in call for call in job.called())
    assert not list(job.folder.rglob("F"))


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("how", ["script", "variable", "sbatch below", "asked", "nowhere"])
def test_checkout_is_found_from_any_folder(job: Job, script: str, how: str) -> None:
    """SLURM runs a copy of the script that lies elsewhere."""
    elsewhere, checkout = job.folder / "else where", job.folder / "checkout"
    (checkout / "data").mkdir()
    elsewhere.mkdir()
    spooled = elsewhere / "slurm_script"
    shutil.copy(ROOT / "slurm" / script, spooled)
    count = {"difix_tune.slurm": 0, "single_training.slurm": 2}.get(script, 1)
    words = ["in", "out"][:count]
    env = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "3", "SLURM_JOB_ID": "3"}
    if how == "script":
        spooled = checkout / "slurm" / script
    elif how == "variable":
        env["SPLATFIX_ROOT"] = str(checkout)
    elif how == "sbatch below":
        env["SLURM_SUBMIT_DIR"] = str(checkout / "data")
    elif how == "asked":
        description = f"   Command={checkout}/slurm/{script} in out.slurm\\n   WorkDir=/\\n"
        job.program("scontrol", f'#!/bin/bash\n[[ $1 == show ]] && printf "{description}"\n')
    code, output = job.run(spooled, *words, cwd=elsewhere, **env)
    if how == "nowhere":
        assert code == 2
        assert output == "no checkout of Splatfix: cd to it before sbatch, or set SPLATFIX_ROOT\n"
        return
    assert code == 0, output
    call = job.called()[0]
    assert call.endswith(f"|{checkout}")
    assert all(f"|{elsewhere}/{word}|" in call for word in words), "as it was meant there"


def test_home_is_found_in_quoted_paths(job: Job) -> None:
    job.run("single_training.slurm", "~/in", "~/out", "~", HOME="/home/me")
    assert job.called()[0].startswith("-m|stages.capture_train|/home/me/in|/home/me/out|~|")


def test_logs_make_their_own_folder(job: Job) -> None:
    """As SLURM would not, and a job without a log would fail without a word."""
    ids = {"SLURM_JOB_ID": "37", "SLURM_ARRAY_JOB_ID": "36", "SLURM_ARRAY_TASK_ID": "0"}
    elsewhere = job.folder / "elsewhere"
    elsewhere.mkdir()
    script = job.folder / "checkout/slurm/single_training.slurm"
    with Path(os.devnull).open("w") as nothing:
        subprocess.run(
            ["bash", script, "only one"],
            cwd=elsewhere,
            env=job.env | ids,
            stdout=nothing,
            stderr=nothing,
            check=False,
        )
    assert "usage: sbatch" in (elsewhere / "slurm_logs/36_0.err").read_text()


def test_scripts_begin_alike() -> None:
    """What finds the checkout cannot be sourced, and so stands in each of them."""
    texts = [(ROOT / "slurm" / name).read_text() for name in SCRIPTS]
    begins = {text[text.index("given=") : text.index(". slurm/job.sh")] for text in texts}
    assert len(begins) == 1


@pytest.mark.parametrize("task", [None, "4", "x"])
def test_task_that_a_script_does_not_have_is_reported(job: Job, task: str | None) -> None:
    env = {} if task is None else {"SLURM_ARRAY_TASK_ID": task}
    code, output = job.run("static_training.slurm", "scene", **env)
    assert code == 2
    assert "expected 0 to 3" in output
    assert len(output.splitlines()) == 1
