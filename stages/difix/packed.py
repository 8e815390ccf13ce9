"""A whole fixer folder in one safetensors file, small enough to live in the repository.

Tensors are kept in half precision under `<file>|<name>`; other files are text in the metadata.
"""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stages.run.errors import UserError
from stages.run.files import whole_file

_FILES = "files"


def pack(folder: Path, target: Path) -> None:
    """Write a folder's safetensors and text files as one file."""
    tensors, texts = {}, {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found = load_file(path)
            tensors |= {f"{name}|{key}": value.half() for key, value in found.items()}
        elif path.suffix in (".json", ".txt", ".md"):
            texts[name] = path.read_text()
    with whole_file(target) as scratch:
        # One entry: safetensors writes several in no fixed order.
        save_file(tensors, scratch, metadata={_FILES: json.dumps(texts, sort_keys=True)})


def unpack(source: Path, folder: Path) -> None:
    """Write the folder that a file holds, in float32. Raises UserError when it holds none."""
    if not source.is_file():
        raise UserError(source, "no such file", fix="set base.source: train, or restore it in git")
    with safe_open(source, framework="pt") as opened:
        texts = json.loads((opened.metadata() or {}).get(_FILES, "{}"))
    if not texts:
        raise UserError(source, "not a packed fixer", expected="a file that `pack` wrote")
    files: dict[str, dict] = {}
    for name, value in load_file(source).items():
        path, _, key = name.partition("|")
        files.setdefault(path, {})[key] = value.float() if value.is_floating_point() else value
    for path in (*texts, *files):
        inside = (folder / path).resolve().is_relative_to(folder.resolve())
        assert inside, f"{source} would write to {path}, outside its folder"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        (folder / path).write_text(text)
    for path, tensors in files.items():
        save_file(tensors, folder / path)
