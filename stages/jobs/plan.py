"""Plans of jobs as data: tasks, their dependencies, and the job arrays that they form.

A task is one DVC stage, or one command outside the graph. Addresses are DVC's: `train@scene`.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from stages.jobs.config import Resources, SlurmConfig
from stages.run.errors import UserError


@dataclass(frozen=True)
class Task:
    """One stage, or a command outside the graph; `needs` are addresses in the same plan."""

    address: str
    needs: tuple[str, ...] = ()
    command: tuple[str, ...] = ()  # empty: the stage's command, recorded by DVC

    @property
    def stage(self) -> str:
        """`train` of `train@scene`."""
        return self.address.partition("@")[0]


@dataclass(frozen=True)
class Array:
    """Jobs of one stage or group with the same resources, each of one or more tasks in order."""

    name: str
    jobs: tuple[tuple[Task, ...], ...]
    resources: Resources

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks of all its jobs."""
        return tuple(itertools.chain.from_iterable(self.jobs))

    def needs(self, index: int) -> tuple[str, ...]:
        """Addresses of other jobs that a job needs."""
        own = {task.address for task in self.jobs[index]}
        needs = itertools.chain.from_iterable(task.needs for task in self.jobs[index])
        return tuple(need for need in dict.fromkeys(needs) if need not in own)


@dataclass(frozen=True)
class JobPlan:
    """Tasks in topological order."""

    tasks: tuple[Task, ...]

    def __post_init__(self) -> None:
        earlier: set[str] = set()
        for task in self.tasks:
            late = [need for need in task.needs if need not in earlier]
            assert not late, f"{task.address} comes before {', '.join(late)}"
            assert task.address not in earlier, f"{task.address} is planned twice"
            earlier.add(task.address)

    @classmethod
    def of(
        cls, needs: Mapping[str, Iterable[str]], commands: Mapping[str, Sequence[str]] | None = None
    ) -> "JobPlan":
        """The plan of a graph: the needs of each address, in any order.

        Needs that another need implies are dropped. `commands` belong to tasks outside the graph.

        >>> plan = JobPlan.of({"c": ["a", "b"], "b": ["a"], "a": []})
        >>> [(task.address, task.needs) for task in plan.tasks]
        [('a', ()), ('b', ('a',)), ('c', ('b',))]
        """
        before: dict[str, frozenset[str]] = {}  # all needs of each address, in topological order

        def visit(address: str) -> None:
            if address not in before:
                direct = list(needs[address])
                for need in direct:
                    visit(need)
                before[address] = frozenset(direct).union(*(before[need] for need in direct))

        for address in needs:
            visit(address)
        commands = commands or {}
        return cls(
            tuple(
                Task(address, _direct(needs[address], before), tuple(commands.get(address, ())))
                for address in before
            )
        )

    def with_first(self, address: str, command: Sequence[str], before: Iterable[str]) -> "JobPlan":
        """The plan with one more task, which the tasks `before` need."""
        dependants = set(before)
        needs = {
            task.address: [address, *task.needs] if task.address in dependants else task.needs
            for task in self.tasks
        }
        return JobPlan.of({address: (), **needs}, {**self._commands(), address: command})

    def with_last(self, address: str, command: Sequence[str]) -> "JobPlan":
        """The plan with one more task, which needs all others."""
        needs: dict[str, Sequence[str]] = {task.address: task.needs for task in self.tasks}
        return JobPlan.of({**needs, address: list(needs)}, {**self._commands(), address: command})

    def dependants(self, address: str) -> list[str]:
        """All tasks that need a task, directly or not, in order."""
        reached = {address}
        for task in self.tasks:
            if reached & set(task.needs):
                reached.add(task.address)
        return [task.address for task in self.tasks if task.address in reached - {address}]

    def heights(self) -> dict[str, int]:
        """Length of the longest chain of tasks that depend on each task."""
        heights = {task.address: 0 for task in self.tasks}
        for task in reversed(self.tasks):
            for need in task.needs:
                heights[need] = max(heights[need], heights[task.address] + 1)
        return heights

    def arrays(self, config: SlurmConfig, max_size: int | None = None) -> list[Array]:
        """Jobs by stage or group, and by resources; at most `max_size` in an array.

        Each job has the tasks that need each other within its group, times `config.pack`. An array
        comes after those that it needs. Raises UserError for a job that needs itself by way of
        others, and for a group with fewer GPUs than one of its stages.
        """
        groups: dict[tuple[str, str], list[tuple[Task, ...]]] = {}
        for name, tasks in self._jobs(config):
            groups.setdefault((name, _resources(name, tasks, config)), []).append(tasks)
        return [
            Array(name, tuple(jobs[first : first + (max_size or len(jobs))]), resources)
            for (name, text), jobs in groups.items()
            for resources in [Resources.model_validate_json(text)]
            for first in range(0, len(jobs), max_size or len(jobs))
        ]

    def chains(self, addresses: Sequence[str]) -> list[list[str]]:
        """Some tasks by what needs each other among them, directly or not; each part in order.

        >>> JobPlan.of({"a": [], "b": [], "c": ["a"]}).chains(["a", "b", "c"])
        [['a', 'c'], ['b']]
        """
        chains: list[list[str]] = []
        tasks = {task.address: task for task in self.tasks}
        for address in addresses:
            needed = [one for one in chains if not set(tasks[address].needs).isdisjoint(one)]
            joined = [*itertools.chain.from_iterable(needed), address]
            place = chains.index(needed[0]) if needed else len(chains)
            chains = [one for one in chains if one not in needed]
            chains.insert(place, sorted(joined, key=addresses.index))
        return chains

    def _jobs(self, config: SlurmConfig) -> list[tuple[str, tuple[Task, ...]]]:
        """Names and tasks of all jobs, in topological order.

        A job of a group has the tasks that need each other within it, directly or not; a job of
        what `config.pack` names has several of these.
        """
        group_of = {stage: name for name, stages in config.group.items() for stage in stages}
        first: dict[str, str] = {}  # a task that stands for all of its job, by address
        members: dict[str, list[Task]] = {}

        def merge(one: str, other: str) -> None:
            into, away = first[one], first[other]
            if into != away:
                for task in members.pop(away):
                    first[task.address] = into
                    members[into].append(task)

        def name_of(one: str) -> str:
            return group_of.get(tasks[one].stage, tasks[one].stage)

        if not (config.group or config.pack):
            return [(task.stage, (task,)) for task in self.tasks]
        tasks = {task.address: task for task in self.tasks}
        for address, task in tasks.items():
            first[address], members[address] = address, [task]
            group = group_of.get(task.stage)
            for need in task.needs:
                if group and group_of.get(tasks[need].stage) == group:
                    merge(need, address)
        alike: dict[tuple[str, str], list[str]] = {}
        for one, some in members.items():
            alike.setdefault((name_of(one), _resources(name_of(one), some, config)), []).append(one)
        for (name, _), jobs in alike.items():
            size = config.pack.get(name, 1)
            for index, one in enumerate(jobs):
                merge(jobs[index - index % size], one)
        needs = {
            one: {first[need] for task in some for need in task.needs} - {one}
            for one, some in members.items()
        }
        try:
            order = list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            cycle = dict.fromkeys(name_of(one) for one in error.args[1])
            raise UserError(
                "slurm.group, slurm.pack",
                f"jobs would wait for each other: {', '.join(cycle)}",
                expected="jobs with no other job between their tasks",
                fix="leave a stage out of the group or of pack, or add the one between",
            ) from error
        place = {address: index for index, address in enumerate(tasks)}
        found = []
        for one in order:
            some = sorted(members[one], key=lambda task: place[task.address])
            _require_gpus(name_of(one), some, config)
            found.append((name_of(one), tuple(some)))
        return found

    def _commands(self) -> dict[str, tuple[str, ...]]:
        return {task.address: task.command for task in self.tasks}

    def as_json(self) -> list[dict[str, Any]]:
        """Plain values for a file."""
        return [asdict(task) for task in self.tasks]

    @classmethod
    def from_json(cls, values: Iterable[Mapping[str, Any]]) -> "JobPlan":
        """The plan from the values that `as_json` returned."""
        return cls(
            tuple(
                Task(value["address"], tuple(value["needs"]), tuple(value["command"]))
                for value in values
            )
        )


def _direct(needs: Iterable[str], before: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    wanted = list(dict.fromkeys(needs))
    implied = frozenset().union(*(before[need] for need in wanted))
    return tuple(need for need in wanted if need not in implied)


def _resources(name: str, tasks: Sequence[Task], config: SlurmConfig) -> str:
    """JSON of the resources of a job: the group's, or those of its stage or item."""
    address = tasks[0].address if name == tasks[0].stage else name
    return config.resources(address).model_dump_json()


def _require_gpus(name: str, tasks: Sequence[Task], config: SlurmConfig) -> None:
    """Raise UserError for a group that has fewer GPUs than one of its stages."""
    for task in tasks:
        if task.stage != name and config.resources(task.address).gpus > config.resources(name).gpus:
            raise UserError(
                f"slurm.group.{name}",
                f"{task.address} has more GPUs than the group",
                expected="resources of a group that are enough for each of its stages",
                fix=f"set slurm.stages.{name}.gpus",
            )
