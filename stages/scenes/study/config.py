"""Typed form of `study:` in params.yaml: the memo of the study as data.

A scene has at most one role. The fixer is tuned on tuning scenes, its checkpoint is chosen on
internal-eval scenes, and the question of the study is answered on downstream scenes. Reserved
scenes, and all scenes of the same people, are never in the first two roles, in any version of the
study. They are prepared, calibrated and trained like all others.
"""

from typing import Annotated

from pydantic import Field

from stages.run.settings.names import Names
from stages.run.settings.params import Section
from stages.run.settings.ranges import Seed

Line = Annotated[str, Field(min_length=1)]


class StudyConfig(Section):
    """One version of the study: its question, scenes and methods."""

    version: Line
    objective: Line
    hypothesis: Line
    scenes: Names
    tuning_scenes: Names
    internal_eval_scenes: Names
    downstream_scenes: Names
    reserved_scenes: Names
    evaluated_scenes: Names
    methods: Names
    fixers: Names
    subject: str
    seeds: tuple[Seed, ...] = ()
    key_decisions: tuple[Line, ...]
    expected_outputs: tuple[Line, ...]
    out_of_scope: tuple[Line, ...]
