"""Resources that jobs request from a cluster: the section `slurm` of params.yaml."""

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from stages.run.settings.params import Section, text_like
from stages.run.settings.ranges import Workers

Count = Annotated[int, Field(ge=0, le=1_000_000)]
Memory = Annotated[str, text_like(r"[1-9][0-9]*[KMGT]", "a number and K, M, G or T, such as 32G")]
Time = Annotated[
    str,
    text_like(
        r"([0-9]+-)?[0-9]{1,3}:[0-9]{2}:[0-9]{2}",
        "[days-]hours:minutes:seconds in quotes, such as '12:00:00' or '1-00:00:00'",
    ),
]
# A value after `=` in an option of sbatch; it cannot begin another option.
Word = Annotated[
    str, text_like(r"[A-Za-z0-9_.,:\[\]-]*", "letters, digits and _ . , : [ ] - without spaces")
]
Name = Annotated[str, text_like(r"[a-z][a-z0-9_]*", "small letters, digits and _")]
Option = Annotated[
    str, text_like(r"(?s)--[a-z].*", "an option of sbatch, such as --constraint=a100")
]


def _no_braces(line: str) -> str:
    if "${" in line:
        raise ValueError("${...}, which DVC replaces in params: write $NAME")
    return line


# A line of the user's own shell code, the only param that a shell reads.
Line = Annotated[str, Field(min_length=1), AfterValidator(_no_braces)]


class Resources(Section):
    """Resources of each job of a stage."""

    gpus: Count
    gpu_type: Word
    cpus: Workers
    memory: Memory
    time: Time
    partition: Word
    account: Word
    exclude: tuple[Word, ...]
    extra: tuple[Option, ...]
    setup: tuple[Line, ...]
    wrap: tuple[str, ...]


class Override(Section):
    """Resources of one stage or item that differ from the default; the others stay."""

    gpus: Count | None = None
    gpu_type: Word | None = None
    cpus: Workers | None = None
    memory: Memory | None = None
    time: Time | None = None
    partition: Word | None = None
    account: Word | None = None
    exclude: tuple[Word, ...] | None = None
    extra: tuple[Option, ...] | None = None
    setup: tuple[Line, ...] | None = None
    wrap: tuple[str, ...] | None = None


class SlurmConfig(Section):
    """How stages become jobs. No result and no stage depends on it."""

    default: Resources
    stages: dict[str, Override]
    group: dict[Name, tuple[str, ...]]
    pack: dict[Name, Annotated[int, Field(ge=1, le=1000)]]
    throttle: Count
    warn_s: Annotated[int, Field(ge=0, le=65535)]
    max_restarts: Count

    @field_validator("stages", "group", "pack", mode="before")
    @classmethod
    def _no_stage_is_an_empty_mapping(cls, value: object) -> object:
        return {} if value is None else value

    def resources(self, address: str) -> Resources:
        """Resources of `stage` or `stage@item`: the item's take precedence over the stage's."""
        stage = address.partition("@")[0]
        resources = self.default
        for name in dict.fromkeys((stage, address)):
            if name in self.stages:
                changes = self.stages[name].model_dump(exclude_none=True)
                resources = resources.model_copy(update=changes)
        return resources
