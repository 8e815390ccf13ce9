"""What memory is left, and whether photographs fit into it."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from stages.run.errors import UserError
from stages.run.process import memory
from stages.run.process.memory import require_for

SIZES = [(4000, 3000)] * 40


def require(factor: int = 1, copies: int = 1) -> None:
    require_for(SIZES, factor, "train.data_factor", "set train.data_factor: {factor}", copies)


def test_images_that_do_not_fit_name_the_factor_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 3 * 2**30)
    with pytest.raises(UserError, match=r"40 images of up to 4000x3000 px") as caught:
        require()
    assert "5.8 GiB of memory, and 3.0 GiB are free" in str(caught.value)
    assert "set train.data_factor: 2" in str(caught.value)
    require(factor=2)
    with pytest.raises(UserError, match="3 times 40 images"):
        require(factor=2, copies=3)
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**20)
    with pytest.raises(UserError, match=r"set train\.data_factor: more"):
        require()
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    require()


def test_the_limit_of_the_shell_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = memory.available_bytes()
    limits = {resource.RLIMIT_AS: (2**50, 2**50)}
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    assert memory.available_bytes() <= before + 2**30
    limits[resource.RLIMIT_AS] = (2**20, 2**50)
    assert memory.available_bytes() == 0


@pytest.mark.parametrize(
    ("line", "files", "left"),
    [
        ("0::/job/step", {"job/memory.max": "1000", "job/memory.current": "400"}, [600]),
        ("0::/", {"memory.max": "1000", "memory.current": "900"}, [100]),
        ("0::/", {"memory.max": "max", "memory.current": "900"}, []),
        (
            "4:cpu,memory:/job",
            {"memory/job/memory.limit_in_bytes": "1000", "memory/job/memory.usage_in_bytes": "1"},
            [999],
        ),
        ("4:cpu:/job", {}, []),
    ],
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, line: str, files: dict[str, str], left: list[int]
) -> None:
    (tmp_path / "own").write_text(f"{line}\n")
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert list(memory._left_by_groups(tmp_path / "groups", tmp_path / "own")) == left


def test_what_the_system_can_take_back_is_free(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    for name, text in {
        "max": "1000",
        "current": "900",
        "stat": "anon 1\ninactive_file 300",
    }.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert list(memory._left_by_groups(tmp_path, tmp_path / "own")) == [400]


_ALLOCATE = """
import resource
import subprocess
import sys
from stages.run.entry import launch

def main():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        b"x" * 2**26
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

launch(main)
"""


@pytest.mark.skipif(not memory.keep_freed_memory(), reason="a C library without mallopt")
def test_an_entry_allocates_from_the_memory_that_it_freed() -> None:
    faults = subprocess.run(
        [sys.executable, "-c", _ALLOCATE], capture_output=True, text=True, check=True
    )
    # Twenty new blocks of 64 MiB would be 327,680 pages of 4 KiB.
    assert int(faults.stdout) < 2 * 2**26 / resource.getpagesize()
