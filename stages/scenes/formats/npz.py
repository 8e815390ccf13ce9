"""NumPy's archives, read without trusting them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError


def read_arrays(
    path: Path,
    keys: Sequence[str],
    expected: str = "",
    fix: str = "copy the file again from its source",
    kind: str = "a readable .npz",
) -> dict[str, NDArray]:
    """Those of `keys` that an .npz file has. Raises UserError when it cannot be read.

    Pickled objects are refused, never executed.
    """
    try:
        with np.load(path, allow_pickle=False) as values:
            found = {key: values[key] for key in keys if key in values}
            # Of a member without NumPy's mark, NumPy gives the bytes.
            odd = [key for key, value in found.items() if not isinstance(value, np.ndarray)]
            if odd:
                raise ValueError(f"{odd[0]} is no array")
            return found
    except FileNotFoundError as error:
        raise UserError(path, "no such file", expected=expected, fix=fix) from error
    # What is damaged fails in a dozen ways: in the archive, its compression, a header, a shape.
    except Exception as error:
        told = str(error) or type(error).__name__
        told = "pickled objects, which are never run" if "pickle" in told else told
        raise UserError(path, f"not {kind} ({told})", expected=expected, fix=fix) from error


def finite(values: NDArray) -> NDArray[np.float64]:
    """Numbers as float64. Raises ValueError for text, for complex numbers, NaN and infinity."""
    if values.dtype.kind not in "fiu":
        raise ValueError(f"values of type {values.dtype}")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("NaN or infinity")
    return numbers
