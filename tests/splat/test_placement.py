"""Which process trains which timestamps, on which GPU, and from which start."""

import sys
from pathlib import Path

import pytest

from stages.run.process.stopping import Preemption
from stages.splat.config import TrainConfig, TrainRuntime
from stages.splat.training import placement

TIMES = ("000021", "000033", "000045", "000057", "000069")


def words(command: list[str], flag: str) -> list[str]:
    """The values of a flag."""
    after = command[command.index(flag) + 1 :]
    return after[: next((k for k, word in enumerate(after) if word.startswith("--")), len(after))]


def test_a_cpu_has_a_process_for_each_core() -> None:
    placed = placement.place(TIMES, TrainConfig(runtime=TrainRuntime(workers=3)), "cpu")
    commands = placed.commands(["stages.train", "--scene", "fight"], Path("out"))
    assert (placed.processes, placed.at_once, str(placed)) == (3, 3, "3 at once")
    shares = [words(command, "--timestamps") for command in commands]
    assert shares == [list(TIMES[::3]), list(TIMES[1::3]), list(TIMES[2::3])]
    assert all(command[:3] == [sys.executable, "-m", "stages.train"] for command in commands)
    assert not any("--gpu" in command for command in commands)


def test_auto_takes_every_core_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert placement.place(TIMES, TrainConfig(), "cpu").processes == 3
    monkeypatch.setenv("SPLATFIX_CORES", "2")
    assert placement.place(TIMES, TrainConfig(), "cpu").processes == 2
    assert placement.place(TIMES[:1], TrainConfig(), "cpu").processes == 1


def test_the_middle_of_each_group_is_its_neighbours_start() -> None:
    config = TrainConfig(warm_start=True, warm_every=3)
    a, b, c, d, e = TIMES
    assert placement.starts(TIMES, config) == {a: b, b: None, c: b, d: e, e: None}
    assert placement.rounds(TIMES, config) == [[b, e], [a, c, d]]


def test_without_warm_starts_all_start_from_sparse_points() -> None:
    assert placement.starts(TIMES, TrainConfig()) == dict.fromkeys(TIMES)
    assert placement.rounds(TIMES, TrainConfig()) == [list(TIMES)]


def test_gpus_share_the_timestamps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-ab12")
    placed = placement.place(TIMES, TrainConfig(runtime=TrainRuntime(workers=4)), "cuda")
    commands = placed.commands(["stages.train", "--scene", "fight"], Path("out"))
    assert placed.processes == 2
    assert str(placed) == "3 at once on each of 2 GPUs"
    assert [words(command, "--gpu") for command in commands] == [["2"], ["GPU-ab12"]]
    shares = [words(command, "--timestamps") for command in commands]
    assert shares == [list(TIMES[::2]), list(TIMES[1::2])]


def test_no_gpu_is_left_without_a_timestamp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "visible_gpus", lambda: [str(k) for k in range(8)])
    placed = placement.place(TIMES[:2], TrainConfig(), "cuda")
    assert placed.gpus == ("0", "1")
    assert placed.shares == ((TIMES[0],), (TIMES[1],))
    assert str(placed) == "1 at once on each of 2 GPUs"


def test_gpu_that_no_driver_counts_is_used_by_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NVML; several processes of a CPU would fight for it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("stages.run.process.gpus.management_library", lambda: None)
    placed = placement.place(TIMES, TrainConfig(runtime=TrainRuntime(workers=3)), "cuda")
    assert (placed.processes, placed.gpus, placed.shares) == (1, (), (TIMES,))


def test_one_stream_trains_in_order_and_stops_at_a_failure() -> None:
    done = []

    def train(timestamp: str, preemption: Preemption) -> None:
        assert not preemption.noticed
        done.append(timestamp)
        if timestamp == TIMES[2]:
            raise ValueError("lost")

    with pytest.raises(ValueError, match="lost"):
        placement.side_by_side(TIMES, train, at_once=1)
    assert done == list(TIMES[:3])
