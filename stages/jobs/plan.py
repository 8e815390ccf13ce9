"""Plans of jobs as data: tasks, their dependencies, and the job arrays that they form.

A task is one DVC stage, or one command outside the graph. Addresses are DVC's: `train@scene`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stages.jobs.config import Resources, SlurmConfig


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
    """Tasks of one stage with the same resources; a task's index is its index in the array."""

    stage: str
    tasks: tuple[Task, ...]
    resources: Resources


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
        """Tasks by stage and resources, at most `max_size` in an array."""
        groups: dict[tuple[str, str], list[Task]] = {}
        for task in self.tasks:
            key = task.stage, config.resources(task.address).model_dump_json()
            groups.setdefault(key, []).append(task)
        return [
            Array(stage, tuple(tasks[first : first + (max_size or len(tasks))]), resources)
            for (stage, _), tasks in groups.items()
            for resources in [config.resources(tasks[0].address)]
            for first in range(0, len(tasks), max_size or len(tasks))
        ]

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
