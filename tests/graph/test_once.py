"""What DVC does anew for every stage: done once, with the same results."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from dvc import rwlock as dvc_rwlock
from dvc.dependency import param
from dvc.dvcfile import Lockfile
from dvc.exceptions import CyclicGraphError
from dvc.fs import LocalFileSystem
from dvc.lock import LockError
from dvc.output import Output
from dvc.parsing.context import Context, MergeError
from dvc.repo import Repo
from dvc.repo import graph as dvc_graph

from stages.graph import once

ROOT = Path(__file__).resolve().parents[2]
FS = LocalFileSystem()
TEXT = """
train: {steps: 3, sizes: [1, 2], '': {}}
plain: {steps: 3, sizes: [1, 2], deep: {er: {a: null}}}
1: {x: 1}
"""


def both(path: Path, keys: list[str]) -> tuple[Any, Any]:
    """Values, or the error, by DVC and by the replacement."""
    results = []
    for read in (once._read_param_file, once.read_params):
        try:
            results.append(read(FS, str(path), keys, True))
        except Exception as error:
            results.append(repr(error))
    return results[0], results[1]


def test_params_are_those_that_dvc_reads() -> None:
    """Every section of this repository's, and every key below."""
    path = ROOT / "params.yaml"
    params = param.load_path(str(path), FS)
    keys = [*params, *(f"{name}.{key}" for name, value in params.items() for key in value)]
    keys += ["absent", "train.absent", "train.max_steps.absent", "study.scenes.0"]
    for key in keys:
        theirs, ours = both(path, [key])
        assert theirs == ours
    theirs, ours = both(path, keys)
    assert theirs == ours
    assert len(ours) > 100


@pytest.mark.parametrize(
    "key", ["plain", "plain.sizes", "plain.sizes.0", "plain.deep.er.a", "plain.st*", "1", "1.x", ""]
)
def test_keys_in_other_forms_are_those_that_dvc_finds(tmp_path: Path, key: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace(", '': {}", ""))
    theirs, ours = both(path, [key])
    assert theirs == ours


def test_edit_of_the_same_length_is_read_and_values_are_the_reader_s_own(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: {b: [1]}\n")
    first = once.read_params(FS, str(path), ["a"], True)
    first["a"]["b"].append(2)
    assert once.read_params(FS, str(path), ["a"], True) == {"a": {"b": [1]}}
    path.write_text("a: {b: [3]}\n")
    assert once.read_params(FS, str(path), ["a"], True) == {"a": {"b": [3]}}


def test_copy_of_the_context_shares_nothing_that_changes() -> None:
    origin = Context({"a": {"b": {"c": 1}}, "d": [1]})
    copied = once.clone(origin)
    copied.merge_update(Context({"a": {"b": {"e": 2}}, "f": 3}))
    assert copied.value == {"a": {"b": {"c": 1, "e": 2}}, "d": [1], "f": 3}
    assert origin.value == {"a": {"b": {"c": 1}}, "d": [1]}
    with pytest.raises(MergeError):
        copied.merge_update(Context({"d": 4}))
    assert copied.select("a.b.c", unwrap=True) == 1


def test_cycle_is_reported_as_dvc_reports_it(tmp_path: Path) -> None:
    stages = {
        name: {"cmd": "x", "deps": [f"{before}.txt"], "outs": [f"{name}.txt"]}
        for name, before in (("a", "b"), ("b", "a"))
    }
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (tmp_path / "params.yaml").write_text("{}\n")
    once.install()
    with Repo.init(str(tmp_path), no_scm=True) as repo, pytest.raises(CyclicGraphError):
        repo.index.graph  # noqa: B018
    assert dvc_graph.check_acyclic is once.check_acyclic


def test_reader_waits_for_no_writer_and_refuses_one_that_runs(tmp_path: Path) -> None:
    """The file is read and written once for all stages, and says what DVC's would."""
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: x, deps: [x.txt], outs: [a.txt]}}\n")
    once.install()
    with Repo.init(str(tmp_path), no_scm=True) as repo, repo.lock:
        (stage,) = repo.index.stages
        place = Path(repo.tmp_dir, "rwlock")
        with once.reading(repo, [stage]):
            place.unlink()
            assert stage.changed()
            assert not place.exists()
        assert stage.changed()
        assert place.exists()
        other = {"pid": os.getppid(), "cmd": "dvc repro"}
        place.write_text(json.dumps({"write": {str(tmp_path / "a.txt"): other}}))
        with pytest.raises(LockError, match="dvc repro"), once.reading(repo, [stage]):
            pass


def test_folder_is_hashed_once_within_a_look_and_anew_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(
        "stages:\n  a: {cmd: x, outs: [out]}\n  b: {cmd: y, deps: [out], outs: [c]}\n"
    )
    Path("out").mkdir()
    Path("out/file").write_text("1")
    walks = []
    plain = once._get_hash
    monkeypatch.setattr(once, "_get_hash", lambda out: walks.append(out.fs_path) or plain(out))
    with Repo.init(no_scm=True) as repo:
        monkeypatch.setattr(Output, "get_hash", once.get_hash)
        (out,) = repo.stage.load_one("dvc.yaml", "a").outs
        (dep,) = repo.stage.load_one("dvc.yaml", "b").deps
        with repo.lock:
            with once.reading(repo, []):
                first = out.get_hash()
                assert dep.get_hash() == first
            assert len(walks) == 1
            Path("out/file").write_text("2")
            with once.reading(repo, []):
                assert dep.get_hash() != first
            assert out.get_hash() == dep.get_hash() == plain(out)
            walks.clear()
            with once.hashing_deps():
                kept = [dep.get_hash(), dep.get_hash()]
                assert len(walks) == 1
                Path("out/file").write_text("3")
                assert out.get_hash() != kept[1], "an out that the stage has just made"
            assert dep.get_hash() == out.get_hash()


def test_repro_in_this_process_records_what_dvc_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {
        name: {"cmd": f"echo {name} > {name}.txt", "deps": deps, "outs": [f"{name}.txt"]}
        for name, deps in (("b", ["x"]), ("a", ["b.txt"]))
    }
    (tmp_path / "x").write_text("x")
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    monkeypatch.chdir(tmp_path)
    texts = []
    with Repo.init(no_scm=True) as repo:
        for dump in (once._dump_stages, once.dump_stages):
            monkeypatch.setattr(Lockfile, "dump_stages", dump)
            Path("dvc.lock").unlink(missing_ok=True)
            repo.reproduce(force=True)
            texts.append(Path("dvc.lock").read_text())
    assert texts[0] == texts[1]


def test_stages_are_those_that_dvc_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a stage of this repository is, by DVC alone and with the replacements."""
    monkeypatch.chdir(ROOT)

    def stages() -> dict[str, Any]:
        with Repo() as repo:
            return {
                stage.addressing: (
                    stage.cmd,
                    stage.wdir,
                    stage.cmd_changed,
                    [(str(dep), dep.hash_info, dep.meta) for dep in stage.deps],
                    [(str(out), out.hash_info, out.meta) for out in stage.outs],
                )
                for stage in repo.index.stages
                if stage.cmd
            }

    with monkeypatch.context() as context:
        context.setattr(param, "read_param_file", once._read_param_file)
        context.setattr(Context, "clone", classmethod(once._clone.__func__))
        context.setattr(dvc_graph, "check_acyclic", once._check_acyclic)
        context.setattr(dvc_rwlock, "rwlock", once._rwlock)
        context.setattr(Lockfile, "_load_yaml", once._load_lock)
        by_dvc = stages()
    once.install()
    ours = stages()
    assert len(ours) > 90
    assert by_dvc == ours


def test_digests_are_written_once_for_all_processes_and_again_after_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPLATFIX_WORK", raising=False)
    Path("dvc.yaml").write_text("stages:\n  a:\n    cmd: python -m stages.a\n")
    Path("stages").mkdir()
    code, digest = Path("stages/a.py"), Path("data/code/a.txt")
    code.write_text("x = 1\n")
    written = []
    plain = once.digests.bring_up_to_date
    monkeypatch.setattr(
        once.digests, "bring_up_to_date", lambda root: written.append(root) or plain(root)
    )

    def in_another_process() -> str:
        once._digested.clear()
        once.bring_digests_up_to_date()
        return digest.read_text()

    first = in_another_process()
    in_another_process()
    assert len(written) == 2, "an edit in the same tick of the clock would not be noticed"
    monkeypatch.setattr(once, "_CLOCK_NS", -(10**9))
    in_another_process()
    assert in_another_process() == first
    assert len(written) == 3
    code.write_text("x = 2\n")
    assert in_another_process() != first
    digest.write_text("old\n")
    assert in_another_process() != "old\n"
    assert len(written) == 5


def test_code_edited_while_its_digest_is_computed_is_not_taken_for_digested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPLATFIX_WORK", raising=False)
    monkeypatch.setattr(once, "_CLOCK_NS", -(10**9))  # as if it had taken seconds
    Path("dvc.yaml").write_text("stages:\n  a:\n    cmd: python -m stages.a\n")
    Path("stages").mkdir()
    code, digest = Path("stages/a.py"), Path("data/code/a.txt")
    code.write_text("x = 1\n")
    plain = once.digests.bring_up_to_date

    def edited_meanwhile(root: Path) -> None:
        plain(root)
        code.write_text("x = 22\n")

    with monkeypatch.context() as patched:
        patched.setattr(once.digests, "bring_up_to_date", edited_meanwhile)
        once.bring_digests_up_to_date()
    before = digest.read_text()
    once.bring_digests_up_to_date()
    assert digest.read_text() != before
