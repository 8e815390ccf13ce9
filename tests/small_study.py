"""A study of one tuning, one internal-eval and one reserved scene."""

from typing import Any

from stages.scenes.study.config import StudyConfig

TUNING, TEST, RESERVED = "hi4d_pair00_dance", "hi4d_pair02_dance", "hi4d_pair15_fight"


def small_study(**values: Any) -> StudyConfig:
    """The study, with other values where given."""
    roles = {
        "tuning_scenes": (TUNING,),
        "internal_eval_scenes": (TEST,),
        "downstream_scenes": (RESERVED,),
        "reserved_scenes": (RESERVED,),
        "evaluated_scenes": (RESERVED,),
    }
    told = {"version": "v0", "objective": "a", "hypothesis": "b", "subject": "none"}
    lists = dict.fromkeys(("fixers", "key_decisions", "expected_outputs", "out_of_scope"), ())
    given = roles | told | lists | {"scenes": (TUNING, TEST, RESERVED), "methods": ("none",)}
    return StudyConfig(**given | values)
