"""Errors of a study whose methods lack what its results are compared with.

The check of the params and the comparison both raise them.
"""

from stages.run.errors import UserError
from stages.run.methods import PLAIN

_ADD = f"add {PLAIN} to study.methods"


def no_plain_for_seeds(where: str) -> UserError:
    """Of `study.seeds` without the plain splat."""
    return UserError(
        where,
        f"no {PLAIN}, and study.seeds is not empty",
        expected=f"{PLAIN} among the methods: the noise floor is of its trainings",
        fix=f"{_ADD}, or set study.seeds=[]",
    )


def no_reference(subject: str, where: str) -> UserError:
    """Of a subject without a method to compare it with."""
    return UserError(
        where,
        f"nothing that the subject {subject} is compared with",
        expected=f"{PLAIN} among the methods, or the untuned fixer by the same method",
        fix=_ADD,
    )
