"""Results of other programs: Gaussians, gsplat's checkpoint and cfg.yml, DiFix's dataset."""

import json
from functools import partial
from pathlib import Path
from random import Random

import torch
from damage import Subject, bytes_of, text_of, value_of
from known_scene import known_gaussians
from small_samples import write_dataset

from stages.samples.importing import ForeignSample, read_foreign
from stages.scenes.config import ImportEntry
from stages.splat.export import write_ply
from stages.splat.gaussians import TENSORS, Gaussians, check_tensors
from stages.splat.gsplat_results import GsplatConfig, read_checkpoint, read_config
from stages.splat.ply import Ply, open_ply

_CFG = """\
antialiased: true
data_factor: 1
match_string: RIGHT
normalize_world_space: true
strategy: !!python/object:gsplat.strategy.default.DefaultStrategy
  prune_opa: 0.006
test_every: 8
"""


def subjects(folder: Path) -> list[Subject]:
    """Each file; the PLY's header most of all."""
    gaussians, ply, checkpoint = known_gaussians(12, 2), folder / "a.ply", folder / "a.pt"
    write_ply(ply, gaussians)
    names = {"scales": "log_scales", "opacities": "opacity_logits"}
    keys = ("means", "quats", "scales", "opacities", "sh0", "shN")
    splats = {key: getattr(gaussians, names.get(key, key)) for key in keys}
    torch.save({"step": 6999, "splats": splats}, checkpoint)
    (folder / "cfg.yml").write_text(_CFG)
    dataset = write_dataset(folder, 2, 2, (8, 8))
    entry, prompt = ImportEntry(group="lab"), "remove degradation"
    read_dataset = partial(read_foreign, folder, entry, "train", prompt)
    return [
        Subject(ply, _header, partial(open_ply, ply), _sane_ply),
        Subject(ply, bytes_of, partial(open_ply, ply), _sane_ply),
        Subject(checkpoint, bytes_of, lambda: read_checkpoint([checkpoint])[0], _sane),
        Subject(folder / "cfg.yml", _text, partial(read_config, folder), _sane_config),
        *(Subject(dataset, damage, read_dataset, _sane_samples) for damage in (_json, bytes_of)),
    ]


def _header(data: bytes, draw: Random) -> bytes:
    """One word of the header odd, or one line lost or twice."""
    head, end, body = data.partition(b"end_header\n")
    if draw.random() < 0.5:
        return text_of(head, draw) + end + body
    lines = head.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    lines[at : at + 1] = lines[at : at + 1] * draw.choice([0, 2])
    return b"".join(lines) + end + body


def _json(data: bytes, draw: Random) -> bytes:
    return json.dumps(value_of(json.loads(data), draw)).encode()


def _sane_samples(found: list[ForeignSample]) -> None:
    assert found
    for sample in found:
        assert {"image", "target_image"} <= sample.files.keys()
        assert all(path.is_file() for path in sample.files.values())


def _text(data: bytes, draw: Random) -> bytes:
    return draw.choice([bytes_of, text_of])(data, draw)


def _sane(found: Gaussians) -> None:
    assert len(found) > 0
    check_tensors({name: getattr(found, name) for name in TENSORS})


def _sane_ply(found: Ply) -> None:
    _sane(found.gaussians)


def _sane_config(found: GsplatConfig) -> None:
    for value in (found.data_factor, found.test_every):
        assert value is None or (type(value) is int and value >= 0)
    assert found.data_factor != 0
