"""Costs added up: parts count once, other scenes not at all."""

from stages.pages.report.costs import stage_costs, total

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
    (row,) = stage_costs({"train": items}, [])
    assert (row.items, row.seconds, row.gpu_seconds) == (1, 25.0, 22.0)
    assert row.energy_wh == 2.2
    assert (row.peak_memory_gib, row.gpu_peak_memory_gib) == (3.0, 5.0)
    assert row.devices == ("H1",)


def test_names_with_a_dot_are_items_where_there_is_no_whole() -> None:
    items = {"a.base": gpu(10.0), "a.tuned": gpu(12.0)}
    (row,) = stage_costs({"fixed_views": items}, [])
    assert (row.items, row.seconds, row.gpu_seconds) == (2, 22.0, 22.0)


def test_other_scenes_do_not_count() -> None:
    items = {"a": CPU | {"seconds": 1.0}, "b": CPU | {"seconds": 2.0}, "b.21": CPU | {"seconds": 3}}
    (row,) = stage_costs({"train": items, "pairs": {"b": items["b"]}}, ["b"])
    assert (row.stage, row.seconds) == ("train", 1.0)


def test_total_adds_time_and_takes_the_largest_memory() -> None:
    recorded = {"train": {"a": gpu(10.0)}, "evaluate": {"a": CPU | {"seconds": 5.0}}}
    found = total(stage_costs(recorded, []))
    assert (found.items, found.seconds, found.gpu_seconds) == (2, 15.0, 10.0)
    assert (found.peak_memory_gib, found.gpu_peak_memory_gib) == (3.0, 2.0)
    assert total(stage_costs({"e": recorded["evaluate"]}, [])).gpu_seconds is None
