"""Costs added up: parts count once, other scenes not at all."""

import pytest

from stages.pages.report.costs import PAUSE_S, stage_costs, study_costs, total, wall_time
from stages.pages.report.tables import costs_table

CPU = {"peak_memory_gib": 1.0, "device": "x86_64"}


def gpu(seconds: float, memory: float = 2.0) -> dict:
    return {
        "seconds": seconds,
        "peak_memory_gib": 3.0,
        "device": "H1",
        "gpu_seconds": seconds,
        "gpu_peak_memory_gib": memory,
        "gpu_energy_wh": seconds / 10,
    }


def test_parts_of_a_scene_are_within_its_time_and_give_its_gpu() -> None:
    items = {"a": CPU | {"seconds": 25.0}, "a.000021": gpu(10.0), "a.000033": gpu(12.0, 5.0)}
    (row,) = stage_costs({"train": items})
    assert (row.items, row.seconds, row.gpu_seconds) == (1, 25.0, 22.0)
    assert row.energy_wh == 2.2
    assert (row.peak_memory_gib, row.gpu_peak_memory_gib) == (3.0, 5.0)
    assert row.devices == ("H1",)


def test_names_with_a_dot_are_items_where_there_is_no_whole() -> None:
    items = {"a.base": gpu(10.0), "a.tuned": gpu(12.0)}
    (row,) = stage_costs({"fixed_views": items})
    assert (row.items, row.seconds, row.gpu_seconds) == (2, 22.0, 22.0)


def test_other_scenes_do_not_count() -> None:
    items = {"a": CPU | {"seconds": 1.0}, "b": CPU | {"seconds": 2.0}, "b.21": CPU | {"seconds": 3}}
    (row,) = stage_costs(study_costs({"train": items, "pairs": {"b": items["b"]}}, ["b"]))
    assert (row.stage, row.seconds) == ("train", 1.0)


def test_total_adds_time_and_takes_the_largest_memory() -> None:
    recorded = {"train": {"a": gpu(10.0)}, "evaluate": {"a": CPU | {"seconds": 5.0}}}
    found = total(stage_costs(recorded))
    assert (found.items, found.seconds, found.gpu_seconds) == (2, 15.0, 10.0)
    assert (found.peak_memory_gib, found.gpu_peak_memory_gib) == (3.0, 2.0)
    assert total(stage_costs({"e": recorded["evaluate"]})).gpu_seconds is None


def timed(start: float, end: float) -> dict:
    return CPU | {"seconds": end - start, "ended": end}


def test_times_add_up_to_the_wall_time() -> None:
    costs = {
        "prepare": {"a": timed(100, 110)},
        # Two at the same time, one within another; parts lie within their whole.
        "train": {"a": timed(112, 152), "b": timed(122, 172), "c": timed(130, 140)},
        "tune": {"x": timed(175, 185), "x.1": timed(176, 180)},
    }
    found = wall_time(costs)
    assert (found.sum_s, found.parallel_s, found.between_s) == (120, 40, 5)
    assert found.wall_s == 185 - 100
    assert found.pauses == 0
    table = costs_table(stage_costs(costs), found)
    seconds = [row[2].key for row in (*table.rows, *table.sums)]
    assert sum(seconds[:3]) == seconds[3]
    assert sum(seconds[3:6]) == seconds[6] == 85
    assert [row[0].text for row in table.sums] == [
        "total",
        "of this at the same time",
        "between stages",
        "wall time",
    ]


def test_pauses_between_sessions_are_no_wall_time() -> None:
    later = 200 + PAUSE_S + 1
    found = wall_time({"e": {"a": timed(100, 200), "b": timed(later, later + 10)}})
    assert (found.wall_s, found.pauses, found.paused_s) == (110, 1, PAUSE_S + 1)


@pytest.mark.parametrize("costs", [{}, {"e": {"a": CPU | {"seconds": 5.0}}}])
def test_without_times_of_ends_there_is_no_wall_time(costs: dict) -> None:
    assert wall_time(costs) is None
    if costs:
        assert len(costs_table(stage_costs(costs), None).sums) == 1
