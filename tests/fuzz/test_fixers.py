"""Damaged fixers: each is read, or told of."""

import json
import random
from collections import Counter
from functools import partial
from pathlib import Path

from damage import bytes_of, outcome, value_of

from stages.difix.folders import read_folder
from stages.difix.packed import unpack
from stages.difix.sources import SHIPPED_FILE

INPUTS = 30


def test_a_damaged_fixer_is_read_or_told_of(tmp_path: Path) -> None:
    unpack(SHIPPED_FILE, tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.suffix in (".json", ".safetensors"))
    files = [path for path in files if path.parent.name in ("unet", "vae", tmp_path.name)]
    draw, seen = random.Random(0), Counter()
    for number in range(INPUTS):
        path = draw.choice(files)
        whole = path.read_bytes()
        odd = path.suffix == ".json" and draw.random() < 0.7
        data = json.dumps(value_of(json.loads(whole), draw)).encode() if odd else None
        path.write_bytes(data or bytes_of(whole, draw))
        seen[outcome(partial(read_folder, tmp_path), f"input {number}, {path.name}")] += 1
        path.write_bytes(whole)
    assert min(seen["told"], seen["result"]) > 0, "damage of one kind alone"
