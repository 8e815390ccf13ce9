"""JSON files of others: calibrations and lists of frames."""

from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.files import parse_json

_FIX = "copy the file again from its source"


def read_object(path: Path, expected: str = "an object: {...}") -> dict[str, Any]:
    """A JSON object of finite numbers. Raises UserError, with `expected`, for anything else."""
    try:
        value = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(path, "no such file", expected=expected) from error
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})", expected=expected) from error
    except (ValueError, RecursionError) as error:
        raise UserError(path, f"not JSON: {error}", expected=expected, fix=_FIX) from error
    if not isinstance(value, dict):
        got = f"JSON, but a {type(value).__name__}"
        raise UserError(path, got, expected=expected, fix=_FIX)
    return value
