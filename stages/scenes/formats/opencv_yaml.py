"""YAML files of OpenCV's FileStorage, as untrusted text: matrices, numbers, words and lists.

They start with `%YAML:1.0`, which is no YAML, and tag matrices `!!opencv-matrix`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

from stages.run.errors import UserError

_MATRIX = "tag:yaml.org,2002:opencv-matrix"
_EXPECTED = "a file of OpenCV's FileStorage: %YAML:1.0, then keys with !!opencv-matrix"


def read_opencv_yaml(path: Path) -> dict[str, Any]:
    """Values by key: matrices as float64 [rows, cols], lists of text, numbers, text.

    Raises UserError for a missing file, other content and a matrix of another size than it says.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(path, "no such file", expected=_EXPECTED) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(path, f"cannot be read ({error})", expected=_EXPECTED) from error
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%YAML"))
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        values = yaml.load(body)
    # Damaged text makes parsers raise anything: YAMLError, ValueError, RecursionError, ...
    except (YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(path, f"cannot be parsed ({reason})", expected=_EXPECTED) from error
    if not isinstance(values, dict):
        raise UserError(path, "no keys", expected=_EXPECTED)
    return values


class _Constructor(SafeConstructor):
    """Its tags are its own: `add_constructor` changes the class that it is called on."""


def _matrix(constructor: Any, node: MappingNode) -> NDArray[np.float64]:
    # Scalars are taken as text, since YAML does not read all numbers that OpenCV writes: -.5, 1.
    fields = {key.value: value for key, value in node.value}
    data = fields["data"]
    if not isinstance(data, SequenceNode):
        raise ValueError("a matrix whose data is no list")
    shape = int(fields["rows"].value), int(fields["cols"].value)
    numbers = np.array([float(one.value.replace(".Nan", "nan")) for one in data.value])
    if min(shape) < 0 or numbers.size != shape[0] * shape[1]:
        raise ValueError(f"a matrix of {shape[0]} x {shape[1]} with {numbers.size} numbers")
    return numbers.reshape(shape)


_Constructor.add_constructor(_MATRIX, _matrix)
