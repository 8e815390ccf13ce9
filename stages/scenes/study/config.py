"""Typed form of `study:` in params.yaml: the memo of the study as data.

A scene has at most one role. The fixer is tuned on tuning scenes, its checkpoint is chosen on
internal-eval scenes, and the question of the study is answered on downstream scenes. Reserved
scenes, and all scenes of the same people, are never in the first two roles, in any version of the
study. They are prepared, calibrated and trained like all others.

Imports are samples that another program wrote; each is in its role like a scene.
"""

import itertools
from typing import Annotated

from pydantic import AfterValidator, Field

from stages.run.settings.names import Names
from stages.run.settings.params import Section
from stages.run.settings.ranges import Seed

Line = Annotated[str, Field(min_length=1)]
_EIGHTHS = tuple(step / 8 for step in range(9))


def _from_raw_to_full(strengths: tuple[float, ...]) -> tuple[float, ...]:
    rising = all(one < other for one, other in itertools.pairwise(strengths))
    if not rising or not strengths or (strengths[0], strengths[-1]) != (0, 1):
        raise ValueError("rising numbers from 0 (the raw render) to 1 (the fixed one), each once")
    return strengths


Strengths = Annotated[tuple[float, ...], AfterValidator(_from_raw_to_full)]


class StudyConfig(Section):
    """One version of the study: its question, scenes and methods."""

    version: Line
    objective: Line
    hypothesis: Line
    scenes: Names
    tuning_scenes: Names
    internal_eval_scenes: Names
    tuning_imports: Names = ()
    internal_eval_imports: Names = ()
    downstream_scenes: Names
    reserved_scenes: Names
    evaluated_scenes: Names
    methods: Names
    fixers: Names
    subject: str
    seeds: tuple[Seed, ...] = ()
    strengths: Strengths = _EIGHTHS
    key_decisions: tuple[Line, ...]
    expected_outputs: tuple[Line, ...]
    out_of_scope: tuple[Line, ...]
