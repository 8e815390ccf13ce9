"""A fixer's folder packed into one safetensors file, small enough for the repository.

Tensors are stored in half precision as `<file>|<name>`, other files as text in the metadata.
"""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.difix.weights.tensors import read_tensors
from stages.run.errors import UserError
from stages.run.files import parse_json, shaped, whole_file

_FILES = "files"


def pack(folder: Path, target: Path) -> None:
    """Write a folder's safetensors and text files as one file."""
    tensors, texts = {}, {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            loaded = load_file(path)
            tensors |= {f"{name}|{key}": value.half() for key, value in loaded.items()}
        elif path.suffix in (".json", ".txt", ".md"):
            texts[name] = path.read_text()
    with whole_file(target) as scratch:
        # One entry, as safetensors writes several in no fixed order.
        save_file(tensors, scratch, metadata={_FILES: json.dumps(texts, sort_keys=True)})


def unpack(source: Path, folder: Path) -> None:
    """Write the folder that is packed in a file, in float32.

    Raises UserError when the file is missing, broken or of another kind.
    """
    tensors = read_tensors(source)
    with shaped(source, "a file that `pack` wrote"), safe_open(source, framework="pt") as opened:
        texts = dict(parse_json((opened.metadata() or {}).get(_FILES, "{}")))
    files: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        path, _, key = name.partition("|")
        files.setdefault(path, {})[key] = value.float() if value.is_floating_point() else value
    with shaped(source, "a file that `pack` wrote"):
        paths = [(folder / path).resolve() for path in (*texts, *files)]
    valid = texts and all(isinstance(text, str) for text in texts.values())
    if not valid or not all(path.is_relative_to(folder.resolve()) for path in paths):
        raise UserError(source, "not a packed fixer", expected="a file that `pack` wrote")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        (folder / path).write_text(text)
    for path, tensors in files.items():
        save_file(tensors, folder / path)
