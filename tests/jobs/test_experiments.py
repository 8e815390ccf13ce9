"""`submit -n`: experiments in worktrees of their own: at once, killed, and in odd places."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from project import Project, Submit

from stages.jobs import experiment
from stages.jobs.experiment import find, open_experiment
from stages.run.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def committed(project: Project, submit: Submit) -> Project:
    """The small project with results in its first commit."""
    assert submit("--local")[0] == 0
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "First")
    project.ran()
    return project


def saved(project: Project) -> dict[str, tuple[str, int]]:
    """Param `plus` and the total of each experiment of the repository."""
    refs = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    place = project.run("git", "rev-parse", "--show-prefix").stdout.strip()

    def read(ref: str, name: str) -> str:
        return project.run("git", "show", f"{ref}:{place}{name}").stdout

    return {
        ref.rpartition("/")[2]: (
            next(line for line in read(ref, "params.yaml").splitlines() if "plus:" in line),
            json.loads(read(ref, "total.json"))["total"],
        )
        for ref in refs
    }


def start(project: Project, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stages.submit", "--local", *words],
        cwd=project.folder,
        env=project.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_experiments_at_once_save_what_each_made(committed: Project) -> None:
    for turn in range(3):
        plus = {f"{name}{turn}": 10 * turn + number for number, name in enumerate("ab", 1)}
        begun = [start(committed, "-n", name, "-S", f"plus={n}") for name, n in plus.items()]
        output = [one.communicate(timeout=120)[0] for one in begun]
        assert [one.returncode for one in begun] == [0, 0], "\n".join(output)
    experiment = saved(committed)
    assert len(experiment) == 6
    for diff, total in experiment.values():
        n = int(diff.split()[1])
        assert total == 2 * (3 + 2 * n), "names of 1 and 2 letters, each n more, doubled"
    assert committed.run("git", "stash", "list").stdout == ""
    assert committed.run("git", "status", "--short").stdout == ""
    assert "a0" in committed.run("dvc", "exp", "list", "--name-only").stdout.split()


def test_one_experiment_begun_twice_at_once_runs_once(committed: Project) -> None:
    committed.work(steps=40, pause_s=0.05)
    begun = [start(committed, "-n", "twin", "-S", "plus=4") for _ in range(2)]
    output = [one.communicate(timeout=120)[0] for one in begun]
    assert sorted(one.returncode for one in begun) == [0, 2], "\n".join(output)
    assert "under way in submission" in "".join(output)
    assert saved(committed) == {"twin": ("plus: 4", 22)}


def killed(during: str, *words: str) -> None:
    """Open an experiment in a process that is killed when it comes to a function."""
    child = os.fork()
    if child == 0:
        setattr(experiment, during, lambda *given: os.kill(os.getpid(), signal.SIGKILL))
        open_experiment("half", words)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("during", ["_copy_edits", "_share_cache", "set_params"])
def test_experiment_killed_while_it_was_opened_begins_anew(
    committed: Project, submit: Submit, during: str
) -> None:
    committed.change(slurm={"throttle": 7})
    killed(during, "plus=10")
    code, output = submit("--local", "-n", "half")
    assert code == 0, output
    assert "opened again" in output
    assert saved(committed) == {"half": ("plus: 10", 46)}, "with the params that it was to have"
    assert "throttle: 7" in (find("half").root / "params.yaml").read_text()


@pytest.mark.parametrize("left", ["folder", "locked", "nothing"])
def test_experiment_killed_inside_git_begins_anew(
    committed: Project, submit: Submit, left: str
) -> None:
    """`git worktree add` writes its record, locked, and the folder, in steps of its own."""
    killed("_copy_edits", "plus=10")
    half = find("half").worktree
    if left == "locked":
        committed.run("git", "worktree", "lock", str(half))
    if left == "nothing":
        committed.run("rm", "-r", str(half))
    if left == "folder":
        (half / ".git").unlink()
    code, output = submit("--local", "-n", "half", "-S", "plus=11")
    assert code == 0, output
    assert saved(committed) == {"half": ("plus: 11", 50)}


def test_experiment_whose_folder_was_deleted_can_begin_again(
    committed: Project, submit: Submit
) -> None:
    submit("--local", "-n", "gone", "-S", "plus=1")
    committed.run("rm", "-r", str(find("gone").worktree))
    code, output = submit("--local", "-n", "gone", "-S", "plus=2")
    assert code == 0, output
    assert saved(committed) == {"gone": ("plus: 2", 14)}


def test_the_same_words_again_go_on(committed: Project, submit: Submit) -> None:
    committed.work(fail=["double@bb"])
    assert submit("--local", "-n", "more", "-S", "plus=3")[0] == 1
    committed.work(fail=[])
    (find("more").root / "work.json").write_text((committed.folder / "work.json").read_text())
    code, output = submit("--local", "-n", "more", "-S", "plus=3")
    assert code == 0, output
    assert saved(committed) == {"more": ("plus: 3", 18)}
    assert "has begun" in submit("--local", "-n", "more", "-S", "plus=5")[1]


@pytest.mark.parametrize("name", ["x.lock", "x.", "../x", "a b"])
def test_name_that_git_or_a_folder_refuses_is_reported_at_once(
    committed: Project, name: str
) -> None:
    with pytest.raises(UserError, match="--name"):
        open_experiment(name, [])


def test_folder_of_another_repository_is_not_taken(
    committed: Project, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    submit("--local", "-n", "mine", "-S", "plus=1")
    other = Project(tmp_path / "other")
    committed.run("git", "clone", "-q", str(committed.folder), str(other.folder))
    monkeypatch.chdir(other.folder)
    code, output = submit("--local", "-n", "mine")
    assert code == 2
    assert "an experiment of another repository" in output
    monkeypatch.chdir(committed.folder)
    killed("set_params", "plus=1")
    monkeypatch.chdir(other.folder)
    code, output = submit("--local", "-n", "half")
    assert code == 2
    assert "an experiment of another repository" in output
    assert find("half").worktree.is_dir(), "left to its own"


def test_save_needs_no_name_in_git(
    committed: Project, submit: Submit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    committed.run("git", "config", "--unset", "user.name")
    committed.run("git", "config", "--unset", "user.email")
    committed.run("git", "config", "user.useConfigOnly", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    code, output = submit("--local", "-n", "more", "-S", "plus=3")
    assert code == 0, output
    assert saved(committed) == {"more": ("plus: 3", 18)}


def test_save_that_fails_says_why(committed: Project, submit: Submit) -> None:
    base = committed.run("git", "rev-parse", "HEAD").stdout.strip()
    taken = f"refs/exps/{base[:2]}/{base[2:]}/more/x"
    committed.run("git", "update-ref", taken, base)
    code, output = submit("--local", "-n", "more", "-S", "plus=3")
    assert code == 1
    assert "save: FAILED with 2" in output
    assert f"'{taken}' exists" in output


STRANGE = 'ü it\'s (a) #1, "b" = %'


@pytest.fixture
def moved(committed: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project below the root of a repository, in a path of many characters."""
    top = tmp_path / STRANGE / "mono"
    top.parent.mkdir()
    committed.folder.rename(top)
    project = Project(top / "part")
    project.folder.mkdir()
    for path in top.iterdir():
        if path.name not in (".git", "part"):
            path.rename(project.folder / path.name)
    (top / "beside.txt").write_text("1")
    monkeypatch.chdir(project.folder)
    project.run("git", "add", "-A", str(top))
    project.run("git", "commit", "-qm", "Move")
    return project


def test_below_the_root_of_git_in_a_path_of_many_characters(moved: Project, submit: Submit) -> None:
    (moved.folder.parent / "beside.txt").write_text("2")
    (moved.folder / "new.txt").write_text("new")
    moved.run("git", "add", "new.txt")
    moved.change(slurm={"throttle": 7})
    before = moved.run("git", "status", "--short").stdout
    code, output = submit("--local", "-n", "more", "-S", "plus=10")
    assert code == 0, output
    assert moved.run("git", "status", "--short").stdout == before
    assert not (moved.folder / ".dvc/config.local").exists()
    assert moved.ran() == []
    assert saved(moved) == {"more": ("plus: 10", 46)}
    experiment = find("more")
    assert experiment.root == experiment.worktree / "part"
    assert (experiment.root / "new.txt").read_text() == "new"
    assert "throttle: 7" in (experiment.root / "params.yaml").read_text()
    diff = json.loads(moved.run("dvc", "metrics", "diff", "--json", "HEAD", "more").stdout)
    assert diff["total.json"]["total"]["diff"] == 40
    cached = list((moved.folder / ".dvc/cache/files/md5").glob("*/*"))
    assert cached
    assert not (experiment.root / ".dvc/cache").exists(), "one cache for all"
    assert submit("--local")[0] == 0, "the workspace itself"


def test_local_settings_come_along_with_paths_as_seen_from_the_workspace(
    committed: Project, submit: Submit, tmp_path: Path
) -> None:
    committed.run("dvc", "remote", "add", "--local", "store", "../store")
    committed.run("dvc", "remote", "add", "--local", "cloud", "s3://bucket/x")
    committed.run("dvc", "remote", "modify", "--local", "cloud", "profile", "me")
    submit("--local", "-n", "more", "-S", "plus=10")
    root = find("more").root
    config = json.loads(
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import json, dvc.repo as r; c = r.Repo().config['remote'];"
                "print(json.dumps({k: dict(c[k]) for k in c}))",
            ],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert Path(config["store"]["url"]).resolve() == tmp_path / "store"
    assert config["cloud"]["url"] == "s3://bucket/x"
    assert config["cloud"]["profile"] == "me"


@pytest.fixture
def clone(committed: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh clone: the record of all results, and none of them, neither here nor in a cache."""
    project = Project(tmp_path / "clone")
    committed.run("git", "clone", "-q", str(committed.folder), str(project.folder))
    project.run("git", "config", "user.email", "test@localhost")
    project.run("git", "config", "user.name", "test")
    monkeypatch.chdir(project.folder)
    return project


def stages_of(output: str) -> list[str]:
    return [line.split("  ")[0] for line in output.splitlines()]


def test_fresh_clone_makes_what_the_named_stages_need(clone: Project, submit: Submit) -> None:
    code, output = submit("--local", "--dry-run", "-n", "more", "double@a")
    assert code == 0
    assert stages_of(output) == ["make x 1", "double x 1", "save x 1"]
    code, output = submit("--local", "-n", "more", "double@a")
    assert code == 0, output
    assert (find("more").root / "data/b/a.txt").read_text() == "2"
    code, output = submit("--local", "-n", "other", "-S", "plus=1", "total")
    assert code == 0, output
    assert saved(clone)["other"] == ("plus: 1", 10)


def test_results_that_nothing_planned_reads_are_not_made_again(
    clone: Project, submit: Submit
) -> None:
    output = submit("--local", "--dry-run", "-n", "more", "total")[1]
    assert "nothing is stale" in output, "total.json is in git, and what it was made of as well"
    work = clone.folder / "dvc.yaml"
    work.write_text(work.read_text().replace("python work.py total", "python work.py total x"))
    output = submit("--local", "--dry-run", "-n", "more", "total")[1]
    assert stages_of(output) == ["make x 2", "double x 2", "total x 1", "save x 1"]


def test_fresh_clone_with_a_cache_makes_nothing_again(
    clone: Project, submit: Submit, committed: Project
) -> None:
    cache = str(committed.folder / ".dvc/cache")
    clone.run("dvc", "cache", "dir", "--local", cache)
    clone.run("git", "config", "core.quotepath", "true")
    assert "nothing is stale" in submit("--local", "--dry-run", "-n", "more")[1]
    code, output = submit("--local", "--dry-run", "-n", "more", "-S", "names=[a,bb,ccc]", "double")
    assert code == 0
    assert stages_of(output) == ["make x 1", "double x 1", "save x 1"]


def test_plain_submission_of_a_fresh_clone_says_what_a_remote_may_have(
    clone: Project, submit: Submit
) -> None:
    code, output = submit("--local", "--dry-run", "double@a")
    assert code == 0
    assert stages_of(output) == ["make x 1", "double x 1"]
    clone.run("dvc", "remote", "add", "-d", "store", "/nowhere")
    for words in (("double@a",), ("-n", "more", "double@a")):
        output = submit("--local", "--dry-run", *words)[1]
        assert output.startswith("2 of 2 tasks are planned only because their results are not here")
        assert "`dvc pull` may bring them from store" in output
    output = submit("--local", "--dry-run", "-n", "more", "-S", "plus=1", "double@a")[1]
    assert "dvc pull" not in output, "these are stale"


def test_data_that_nothing_makes_and_is_not_here_is_reported_before_work_begins(
    committed: Project, submit: Submit
) -> None:
    (committed.folder / "raw.txt").write_text("1")
    committed.run("dvc", "add", "-q", "raw.txt")
    path = committed.folder / "dvc.yaml"
    path.write_text(path.read_text().replace("deps: [work.py]", "deps: [work.py, raw.txt]"))
    (committed.folder / "raw.txt").unlink()
    code, output = submit("--local")
    assert code == 2
    assert "raw.txt.dvc: its data is not in the workspace" in output
    assert "dvc checkout raw.txt.dvc" in output
    assert submit("--local", "--dry-run", "-n", "more")[0] == 0, "an experiment takes it by itself"
    committed.run("rm", "-r", ".dvc/cache")
    for words in ((), ("-n", "more")):
        code, output = submit("--local", *words)
        assert code == 2
        assert "nor in the cache" in output
        assert "dvc pull raw.txt.dvc" in output
    assert committed.ran() == []


def test_data_laid_by_hand_is_the_workspace_s(committed: Project, submit: Submit) -> None:
    raw = committed.folder / "data/raw"
    raw.mkdir()
    (raw / "x.txt").write_text("1")
    path = committed.folder / "dvc.yaml"
    path.write_text(path.read_text().replace("deps: [work.py]", "deps: [work.py, data/raw]"))
    code, output = submit("--local", "-n", "more", "-S", "plus=3")
    assert code == 0, output
    assert (find("more").root / "data/raw/x.txt").read_text() == "1"
    assert saved(committed) == {"more": ("plus: 3", 18)}


def test_param_that_a_shell_took_apart_is_shown_in_quotes(
    committed: Project, submit: Submit
) -> None:
    code, output = submit("--local", "--dry-run", "-n", "more", "-S", "plus=a (2)")
    assert code == 2
    assert "fix: for a text write -S 'plus=\"a (2)\"'" in output
    assert "for a text" not in submit("--local", "--dry-run", "-n", "more", "-S", "plsu=1")[1]


def test_hooks_of_dvc_do_not_run_in_a_worktree_without_its_cache(
    committed: Project, submit: Submit
) -> None:
    committed.run("dvc", "install")
    code, output = submit("--local", "-n", "more", "-S", "plus=3")
    assert code == 0, output
    assert saved(committed) == {"more": ("plus: 3", 18)}
