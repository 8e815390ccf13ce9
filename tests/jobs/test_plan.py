"""Order, needs and arrays of a plan."""

from types import SimpleNamespace

import pytest

from stages.jobs.config import SlurmConfig
from stages.jobs.local import LocalRun
from stages.jobs.plan import JobPlan, Task
from stages.jobs.submit import plan_table
from stages.jobs.task_process import Stop
from stages.run.errors import UserError
from stages.run.settings.params import Params

GRAPH = {
    "report": ["score@a", "score@b", "train@a"],
    "score@a": ["train@a", "make@a", "tune"],
    "score@b": ["train@b", "tune"],
    "train@a": ["make@a"],
    "train@b": [],
    "tune": ["train@a"],
    "make@a": [],
}


def needs(plan: JobPlan) -> dict[str, set[str]]:
    return {task.address: set(task.needs) for task in plan.tasks}


def config(group: dict | None = None, pack: dict | None = None, **stages: dict) -> SlurmConfig:
    default = {
        "gpus": 0,
        "gpu_type": "",
        "cpus": 2,
        "memory": "32G",
        "time": "12:00:00",
        "partition": "",
        "account": "",
        "exclude": ["bad1"],
        "extra": [],
        "setup": [],
        "wrap": [],
    }
    raw = {"default": default, "stages": stages, "group": group, "pack": pack, "throttle": 0}
    raw |= {"warn_s": 300, "max_restarts": 3}
    return Params({"slurm": raw}, "params.yaml").section("slurm", SlurmConfig)


def test_each_task_comes_after_its_needs_and_waits_for_no_more_than_it_must() -> None:
    plan = JobPlan.of(GRAPH)
    order = [task.address for task in plan.tasks]
    assert sorted(order) == sorted(GRAPH)
    for task in plan.tasks:
        assert all(order.index(need) < order.index(task.address) for need in GRAPH[task.address])
    assert needs(plan)["score@a"] == {"tune"}, "tune implies train@a, which implies make@a"
    assert needs(plan)["score@b"] == {"train@b", "tune"}
    assert needs(plan)["report"] == {"score@a", "score@b"}


def test_plan_in_the_wrong_order_is_refused() -> None:
    with pytest.raises(AssertionError, match="b comes before a"):
        JobPlan((Task("b", ("a",)), Task("a")))


def test_dependants_are_all_that_follow_and_nothing_else() -> None:
    plan = JobPlan.of(GRAPH)
    assert set(plan.dependants("train@b")) == {"score@b", "report"}
    assert set(plan.dependants("make@a")) == set(GRAPH) - {"make@a", "train@b"}
    assert plan.dependants("report") == []


def test_heights_count_the_longest_way() -> None:
    assert JobPlan.of(GRAPH).heights() == {
        "report": 0,
        "score@a": 1,
        "score@b": 1,
        "tune": 2,
        "train@a": 3,
        "train@b": 2,
        "make@a": 4,
    }


def test_heights_are_of_the_longest_of_several_ways() -> None:
    """The short way of `a` comes before its long one in the plan."""
    graph = {"b": ["a"], "d": ["c"], "c": ["a"], "a": []}
    plan = JobPlan.of(graph)
    assert [task.address for task in plan.tasks] == ["a", "b", "c", "d"]
    assert plan.heights() == {"a": 2, "b": 0, "c": 1, "d": 0}


def test_a_local_run_starts_what_most_others_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way through the highest tasks is the longest: to begin it late is to end late."""
    begun: list[str] = []

    def start(run: LocalRun, task: Task, stop: Stop) -> None:
        begun.append(task.address)
        del run.waiting[task.address]
        run.done.add(task.address)

    monkeypatch.setattr(LocalRun, "_start", start)
    pipeline, folder = SimpleNamespace(record=lambda: None), SimpleNamespace(mkdir=lambda **_: None)
    plan = JobPlan.of(GRAPH)
    submission = SimpleNamespace(plan=plan, logs=folder)
    assert LocalRun(pipeline, submission, config(), 1).run() == 0
    heights = [plan.heights()[address] for address in begun]
    assert heights == sorted(heights, reverse=True)
    assert sorted(begun) == sorted(GRAPH)


def test_first_and_last_tasks_bring_their_commands() -> None:
    plan = JobPlan.of(GRAPH).with_last("save", ["git", "tag"])
    plan = plan.with_first("build", ["make"], ["train@a", "train@b", "score@b"])
    found = needs(plan)
    assert found["save"] == {"report"}
    assert found["train@b"] == {"build"}
    assert found["train@a"] == {"build", "make@a"}
    assert found["score@b"] == {"train@b", "tune"}, "these wait for the build already"
    commands = {task.address: task.command for task in plan.tasks if task.command}
    assert commands == {"build": ("make",), "save": ("git", "tag")}
    assert JobPlan.from_json(plan.as_json()) == plan


def test_items_of_a_stage_are_one_array_unless_their_resources_differ() -> None:
    plan = JobPlan.of(dict.fromkeys(["train@a", "train@b", "train@c", "tune"], ()))
    arrays = plan.arrays(config(**{"train": {"gpus": 1}, "train@b": {"memory": "64G"}}))
    found = [
        ([task.address for task in one.tasks], one.resources.gpus, one.resources.memory)
        for one in arrays
    ]
    assert found == [
        (["train@a", "train@c"], 1, "32G"),
        (["train@b"], 1, "64G"),
        (["tune"], 0, "32G"),
    ]
    assert arrays[1].resources.exclude == ("bad1",)


def jobs_of(plan: JobPlan, group: dict, **stages: dict) -> dict[str, list[list[str]]]:
    return {
        one.name: [[task.address for task in tasks] for tasks in one.jobs]
        for one in plan.arrays(config(group, **stages))
    }


def test_tasks_of_a_group_that_need_each_other_share_a_job() -> None:
    graph = {"prepare@a": [], "calibrate@a": ["prepare@a"], "train@a": ["calibrate@a"]}
    graph |= {"prepare@b": [], "calibrate@b": ["prepare@b"], "train@b": ["calibrate@b"]}
    graph |= {"score@a-x": ["train@a"], "score@a-y": ["train@a"], "score@b-x": ["train@b"]}
    plan = JobPlan.of({**graph, "report": [one for one in graph if one.startswith("score")]})
    group = {"scene": ["prepare", "calibrate"], "last": ["train", "score"]}
    jobs = jobs_of(plan, group, last={"memory": "64G"})
    assert jobs == {
        "scene": [["prepare@a", "calibrate@a"], ["prepare@b", "calibrate@b"]],
        "last": [["train@a", "score@a-x", "score@a-y"], ["train@b", "score@b-x"]],
        "report": [["report"]],
    }
    arrays = {one.name: one for one in plan.arrays(config(group, last={"memory": "64G"}))}
    assert arrays["last"].resources.memory == "64G"
    assert arrays["last"].needs(1) == ("calibrate@b",)
    assert arrays["scene"].needs(0) == ()
    assert jobs_of(JobPlan.of({"score@a": [], "score@b": []}), group)["last"] == [
        ["score@a"],
        ["score@b"],
    ]


def test_group_that_would_wait_for_itself_is_refused() -> None:
    plan = JobPlan.of({"a": [], "b": ["a"], "c": ["b"], "d": ["b"], "e": ["c", "d"]})
    with pytest.raises(UserError, match=r"jobs would wait for each other: .*outer"):
        plan.arrays(config({"outer": ["b", "c", "e"]}))
    with pytest.raises(UserError, match="b has more GPUs than the group"):
        plan.arrays(config({"one": ["a", "b"]}, b={"gpus": 1}))
    assert plan.arrays(config({"one": ["a", "b"]}, b={"gpus": 1}, one={"gpus": 1}))


def test_jobs_are_packed_where_their_resources_are_the_same() -> None:
    graph = {f"{kind}@{name}": [] for kind in ("prepare", "train") for name in "abcde"}
    graph |= {f"train@{name}": [f"prepare@{name}"] for name in "abcde"}
    plan = JobPlan.of(graph)
    arrays = plan.arrays(config(pack={"train": 2}, **{"train@c": {"memory": "64G"}}))
    packed = [
        [[task.address for task in job] for job in one.jobs]
        for one in arrays
        if one.name == "train"
    ]
    assert sorted(packed, key=len) == [
        [["train@c"]],
        [["train@a", "train@b"], ["train@d", "train@e"]],
    ]
    assert next(one for one in arrays if len(one.jobs) == 2).needs(0) == ("prepare@a", "prepare@b")
    (array,) = plan.arrays(config({"scene": ["prepare", "train"]}, pack={"scene": 3}))
    assert [len(job) for job in array.jobs] == [6, 4]
    of_job = [task.address for task in array.jobs[1]]
    assert plan.chains(of_job) == [["prepare@d", "train@d"], ["prepare@e", "train@e"]]
    chain = JobPlan.of({"fit@a": [], "x": ["fit@a"], "fit@b": ["x"]})
    with pytest.raises(UserError, match=r"jobs would wait for each other: .*fit"):
        chain.arrays(config(pack={"fit": 2}))


def test_table_of_a_plan_says_what_shares_jobs() -> None:
    graph = {f"{kind}@{name}": [] for kind in ("prepare", "pose", "train") for name in "abc"}
    graph |= {f"pose@{name}": [f"prepare@{name}"] for name in "abc"}
    graph |= {"report": [f"train@{name}" for name in "abc"]}
    table = plan_table(JobPlan.of(graph), config({"scene": ["prepare", "pose"]}, {"train": 2}))
    assert sorted(line.split("  ")[0] for line in table.splitlines()) == [
        "report x 1",
        "scene x 3 (6 tasks: prepare, pose)",
        "train x 2 (3 tasks)",
    ]


def test_array_larger_than_the_cluster_takes_is_split() -> None:
    plan = JobPlan.of(dict.fromkeys([*(f"train@{number}" for number in range(7)), "tune"], ()))
    sizes = [(one.name, len(one.jobs)) for one in plan.arrays(config(), 3)]
    assert sizes == [("train", 3), ("train", 3), ("train", 1), ("tune", 1)]
    found = [task.address for one in plan.arrays(config(), 3) for task in one.tasks]
    assert found == [task.address for task in plan.tasks]
    assert [len(one.tasks) for one in plan.arrays(config(), 7)] == [7, 1]
