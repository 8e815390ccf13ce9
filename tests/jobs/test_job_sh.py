"""slurm/job.sh without a cluster: stand-ins for SLURM and for `python` write what they get.

The same on a real cluster: test_slurm_scripts.py.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import ROOT

from stages.run.settings.params import Params

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
        self.env = kept | {"PATH": path, "CALLS": str(self.calls), "LINES": "1"}

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
    checkout = job.folder / "checkout"
    for name in ("eval", "e"):
        (checkout / name).mkdir()
    words = ("dual_training.slurm", "old", "", "eval")
    code, _ = job.run(*words, FAILS="stages.capture_evaluate", **ids)
    assert (code, len(job.called())) == (3, 2)
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


def options(call: str) -> list[str]:
    """Words of a call behind the stage's name, without the folder that it ran in."""
    return call.split("|")[2:-1]


def test_environment_of_the_repository_is_used_whatever_is_active(job: Job) -> None:
    own = job.folder / "checkout/.venv/bin"
    own.mkdir(parents=True)
    (own / "activate").write_text(f"PATH={own}:$PATH")
    (own / "python").write_text('#!/bin/bash\necho "own|$*" >> "$CALLS"\n')
    (own / "python").chmod(0o755)
    for env in (
        {"VIRTUAL_ENV": "/of/something/else"},
        {"SPLATFIX_SETUP": f"PATH={job.folder}/bin:$PATH\nexport VIRTUAL_ENV=/x$UNSET"},
    ):
        code, output = job.run("single_training.slurm", "in", "out", **env)
        assert code == 0, output
        assert [call.split("|")[0] for call in job.called()] == ["own"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("false\necho reached", "false ended with 1"),
        ("module_that_is_not_there load x", "module_that_is_not_there load x ended with 127"),
        ("(exit 3)", "ended with 3"),
        ("exit 0", "a line ended the job"),
        ("return 0", "a line returned"),
    ],
)
def test_line_of_the_setup_that_fails_ends_the_job(job: Job, line: str, why: str) -> None:
    code, output = job.run("single_training.slurm", "in", "out", SPLATFIX_SETUP=line)
    assert code == 2
    assert "SPLATFIX_SETUP: " in output
    assert why in output
    assert "reached" not in output
    assert job.called() == []


@pytest.mark.parametrize(
    "line",
    ["cd /", "set -- a b", "given=7; here=/etc; root=/", "false || true", "[[ -d /x ]] && y"],
)
def test_line_of_the_setup_leaves_the_script_as_it_is(job: Job, line: str) -> None:
    before = job.run("single_training.slurm", "in", "out"), job.called()
    after = job.run("single_training.slurm", "in", "out", SPLATFIX_SETUP=line), job.called()
    assert before[0][0] == after[0][0] == 0, after[0][1]
    assert after[1] == before[1]


FULL = ["--recipe", "studies/full.yaml"]


@pytest.mark.parametrize(
    ("variable", "passed"),
    [
        (None, FULL),
        ("", []),
        ("studies/absgrad.yaml", ["--recipe", "studies/absgrad.yaml"]),
        ("studies/full.yaml:my own.yaml", [*FULL, "--recipe", "{here}/my own.yaml"]),
        ("/no/file.yaml", None),
        ("studies/ful.yaml:my own.yaml", None),
    ],
)
def test_recipe_is_the_full_size_one_unless_another_is_named(
    job: Job, variable: str | None, passed: list[str] | None
) -> None:
    here = job.folder / "else where"
    shutil.copytree(ROOT / "studies", job.folder / "checkout/studies")
    here.mkdir()
    (here / "my own.yaml").touch()
    env = {} if variable is None else {"RECIPE": variable}
    code, output = job.run(
        job.folder / "checkout/slurm/single_training.slurm", "in", "out", cwd=here, **env
    )
    calls = job.called()
    if passed is None:
        assert (code, calls) == (2, [])
        assert f"RECIPE={variable}: no file {variable.partition(':')[0]} in {here} or " in output
        return
    assert code == 0, output
    words = [str(here / "in"), str(here / "out"), *passed]
    assert options(calls[0]) == [word.format(here=here) for word in words]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_training_and_evaluation_gets_the_recipe(job: Job, script: str) -> None:
    if script == "difix_tune.slurm":
        pytest.skip("tunes by params.yaml, as DVC does")
    (job.folder / "checkout/eval").mkdir()
    words = ["in", "RIGHT", "eval"][: {"single": 2, "dual": 3}.get(script.partition("_")[0], 1)]
    code, output = job.run(script, *words, SLURM_ARRAY_TASK_ID="0")
    assert code == 0, output
    calls = job.called()
    assert calls
    assert all("|--recipe|studies/full.yaml|" in call for call in calls)


def test_dual_training_with_its_variables(job: Job) -> None:
    variables = {
        "RESULT_ROOT": "/scratch/my results",
        "TRAIN_TEST_EVERY": "4",
        "EVAL_MATCH_STRING": "a (b), c",
        "RECIPE": "",
        "SLURM_ARRAY_TASK_ID": "1",
    }
    (job.folder / "eval").mkdir()
    code, output = job.run("dual_training.slurm", "../dog", "RIGHT", "../eval", **variables)
    assert code == 0, output
    train, evaluate = map(options, job.called())
    result, settings = "/scratch/my results/dog/filtered", ["-S", "capture_train.test_every=4"]
    settings += ["--set-text", "capture_evaluate.match_string=a (b), c"]
    assert train == ["../dog", result, "RIGHT", *settings]
    assert evaluate == [result, "../eval", *settings]


def test_relative_result_root_is_meant_where_the_job_was_sent_from(job: Job) -> None:
    here = job.folder / "here"
    here.mkdir()
    env = {"RESULT_ROOT": "out", "RECIPE": "", "SLURM_ARRAY_TASK_ID": "0"}
    script = job.folder / "checkout/slurm/dual_training.slurm"
    assert job.run(script, "dog", cwd=here, **env)[0] == 0
    assert options(job.called()[0]) == [str(here / "dog"), str(here / "out/dog/combined")]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("in/dog/", "dog"),
        (".", "checkout"),
        ("..", "{parent}"),
        ("in/dog/train/..", "dog"),
        ("in/dog/.//", "dog"),
        ("/in/two words/", "two words"),
    ],
)
def test_results_are_named_after_the_folder_itself(job: Job, data: str, name: str) -> None:
    env = {"RECIPE": "", "SLURM_ARRAY_TASK_ID": "0"}
    code, output = job.run("dual_training.slurm", data, **env)
    assert code == 0, output
    name = name.format(parent=job.folder.name)
    assert options(job.called()[0]) == [data, f"results/{name}/combined"]


@pytest.mark.parametrize("task", ["0", "1"])
@pytest.mark.parametrize("variant", ["combined", "filtered"])
def test_only_the_variant_that_is_named_is_trained(job: Job, variant: str, task: str) -> None:
    words = ("room", "RIGHT", "", variant)
    code, output = job.run("dual_training.slurm", *words, SLURM_ARRAY_TASK_ID=task)
    assert code == 0, output
    chosen = ["combined", "filtered"][int(task)]
    assert len(job.called()) == (chosen == variant)
    assert (f"VARIANT is {variant}: nothing to do for {chosen}" in output) == (chosen != variant)


@pytest.mark.parametrize("task", ["0", "1"])
def test_evaluation_set_that_is_not_there_fails_before_anything_is_trained(
    job: Job, task: str
) -> None:
    words = ("dual_training.slurm", "room", "RIGHT", "../no eval")
    assert job.run(*words, SLURM_ARRAY_TASK_ID=task) == (
        2,
        "EVAL_DIR ../no eval: no such folder; expected a COLMAP dataset\n",
    )
    assert job.called() == []


@pytest.mark.parametrize("task", ["0", "1"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("RIGHT", "", "both"), "VARIANT both: expected combined or filtered"),
        (("", "", "filtered"), "VARIANT filtered without a MATCH_STRING"),
        (("RIGHT", "", "combined", "x"), "usage: sbatch slurm/dual_training.slurm DATA_DIR"),
    ],
)
def test_wrong_variant_fails_before_anything_is_trained(
    job: Job, words: tuple[str, ...], message: str, task: str
) -> None:
    code, output = job.run("dual_training.slurm", "room", *words, SLURM_ARRAY_TASK_ID=task)
    assert (code, job.called()) == (2, [])
    assert message in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "variable", "told"),
    [
        ("static_training", "COVI_CHUNKS", "did you mean COVI_CHUNK?"),
        ("static_training", "COVI_NUM_MIN_VIEWS", "did you mean COVI_NUM_MIN_FRAMES?"),
        ("static_training", "LF_INNER", "static_preprocessing can"),
        ("static_preprocessing", "VGGT_CACHEDIR", "did you mean VGGT_CACHE?"),
        ("single_training", "RESULT_ROOT", "dual_training and static_training can"),
        ("dual_training", "EVAL_MATCH", "it reads RECIPE TRAIN_TEST_EVERY EVAL_MATCH_STRING"),
        ("dual_training", "EVAL_TEST_EVERY", "did you mean TRAIN_TEST_EVERY?; static_training can"),
        ("single_training", "RECIPES", "did you mean RECIPE?"),
        ("difix_tune", "RECIPE", "dual_training and single_training and static_preprocessing"),
    ],
)
def test_variable_that_a_script_does_not_read_is_told(
    job: Job, script: str, variable: str, told: str
) -> None:
    words = {"single_training": ["in", "out"], "difix_tune": []}.get(script, ["in"])
    env = {variable: "studies/full.yaml", "SLURM_ARRAY_TASK_ID": "0"}
    code, output = job.run(f"{script}.slurm", *words, **env)
    assert code == 0, output
    assert job.called(), "it is no error"
    (line,) = output.splitlines()
    assert line.startswith(f"WARNING: variable {variable}: {script} does not read it; ")
    assert told in line


def test_variables_that_are_read_are_not_told(job: Job) -> None:
    env = {"TRAIN_TEST_EVERY": "2", "RESULT_ROOT": "/out", "FORCE": "1", "SLURM_ARRAY_TASK_ID": "0"}
    assert job.run("static_training.slurm", "in", **env) == (0, "")
    assert job.run("dual_training.slurm", "in", **env) == (0, "")


def test_switch_that_is_neither_1_nor_0_is_refused(job: Job) -> None:
    env = {"SKIP_TRAIN": "yes", "SLURM_ARRAY_TASK_ID": "0"}
    code, output = job.run("static_training.slurm", "in", **env)
    assert (code, job.called()) == (2, [])
    assert output == "SKIP_TRAIN=yes: expected 0 or 1 (it sets runtime.static.skip_train)\n"


def test_keys_that_scripts_set_are_params() -> None:
    params = Params.read(ROOT / "params.yaml").raw
    texts = "".join((ROOT / "slurm" / name).read_text() for name in SCRIPTS)
    keys = re.findall(r"^set_(?:param|text|path|switch) (\S+) [A-Z_]+$", texts, re.MULTILINE)
    assert len(keys) > 15
    for key in keys:
        node = params
        for part in key.split("."):
            assert part in node, f"params.yaml has no {key}"
            node = node[part]


@pytest.mark.parametrize(
    ("script", "variable", "value", "key", "expected"),
    [
        ("static_preprocessing", "LF_INNER", "two", "static.lf_inner", "a whole number"),
        ("static_preprocessing", "LF_INNER", "1,2", "static.lf_inner", "section.key=value"),
        ("static_preprocessing", "VGGT_STAGE", "sfm", "static.vggt_stage", "'both', 'vggt' or"),
        ("static_training", "COVI_CHUNK", "0", "runtime.static.covi_chunk", "greater than"),
        ("static_training", "COVI_DEVICE", "gpu", "static.covi_device", "'auto', 'cpu' or 'cuda'"),
        ("dual_training", "TRAIN_TEST_EVERY", "-1", "capture_train.test_every", "greater than"),
    ],
)
def test_bad_value_of_a_variable_names_it_and_its_key(
    tmp_path: Path, script: str, variable: str, value: str, key: str, expected: str
) -> None:
    """By the stages themselves, in the checkout that these tests are from."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SLURM_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    work = {"SPLATFIX_WORK": str(tmp_path / "work"), "RESULT_ROOT": str(tmp_path / "out")}
    env = kept | work | {"PATH": path, variable: value, "SLURM_ARRAY_TASK_ID": "0"}
    if script == "static_preprocessing":
        del env["RESULT_ROOT"]
    done = subprocess.run(
        ["bash", ROOT / "slurm" / f"{script}.slurm", str(tmp_path)],
        cwd=tmp_path,
        env=env,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 2, done.stderr
    assert f"variable {variable}  " in done.stderr
    assert f"{key}" in done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
