"""Arrays of .npz files from untrusted sources."""

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
    """The arrays under those of `keys` that an .npz file has; pickled objects are refused.

    Raises UserError, with `expected` and `fix`, for a file that is not `kind`.
    """
    try:
        with np.load(path, allow_pickle=False) as values:
            arrays = {key: values[key] for key in keys if key in values}
            # NumPy returns members without its magic string as bytes.
            others = [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]
            if others:
                raise ValueError(f"{others[0]} is no array")
            return arrays
    except FileNotFoundError as error:
        raise UserError(path, "no such file", expected=expected, fix=fix) from error
    # Damaged files raise many types: of zipfile, zlib, header parsing, reshaping.
    except Exception as error:
        reason = str(error) or type(error).__name__
        reason = "pickled objects, which are never loaded" if "pickle" in reason else reason
        raise UserError(path, f"not {kind} ({reason})", expected=expected, fix=fix) from error


def finite(values: NDArray) -> NDArray[np.float64]:
    """Numbers as float64. Raises ValueError for text, complex numbers, NaN and infinity."""
    if values.dtype.kind not in "fiu":
        raise ValueError(f"values of type {values.dtype}")
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("NaN or infinity")
    return numbers
