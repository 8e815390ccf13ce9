"""The data set that a fixer is tuned on, in DiFix's own form, and the guard over its images.

`dataset.json` is {"train": {id: {"image", "target_image", "ref_image", "prompt"}}, "test": {...}}
with paths relative to the root of the repository. It may be edited by hand as long as nothing
leaks: every file must be one that stage `pairs` made, of a scene in the split's role, and still
have the bytes that it was made with. pairs.json records these; its own digest is in git.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.run import layout
from stages.run.errors import UserError, raise_all
from stages.run.files import read_json, text_hash
from stages.samples import photographed
from stages.samples.faults import Split, misused, path_of
from stages.samples.index import KINDS, SampleIndex, SampleRecord, read_index
from stages.samples.leaks import photographs, shared_contents
from stages.samples.near_duplicates import Pictures, near_duplicates, prepared, taught
from stages.scenes.config import ManifestConfig
from stages.scenes.scene import Scene
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.identity import people
from stages.scenes.study.overlap import Subject
from stages.scenes.study.roles import (
    RESERVED,
    Case,
    Names,
    Verdict,
    Where,
    dotted,
    judge_roles,
    notes_on_roles,
)

# DiFix's names of the splits, and the roles of the scenes that they come from.
SPLITS = {"train": "tuning_scenes", "test": "internal_eval_scenes"}
_MEASURED = "downstream and reserved scenes"
_MOST_ERRORS = 20  # of one data set; thousands of absent files have one cause

Dataset = dict[str, dict[str, dict[str, str]]]


@dataclass(frozen=True)
class Collected:
    """Pairs of every scene in a learning role, and what was wrong with them."""

    indices: Mapping[str, Mapping[str, SampleIndex]]  # split -> scene -> pairs
    errors: tuple[UserError, ...]


def collect(study: StudyConfig) -> Collected:
    """Read the pairs of all tuning and internal-eval scenes."""
    errors: list[UserError] = []
    indices: dict[str, dict[str, SampleIndex]] = {}
    for split, role in SPLITS.items():
        indices[split] = {}
        for scene in _lists(study)[role]:
            try:
                indices[split][scene] = _index(scene, split)
            except UserError as error:
                errors.append(error)
    return Collected(indices, tuple(errors))


def build(study: StudyConfig, collected: Collected, config: ManifestConfig) -> Dataset:
    """The data set of all pairs; tuning samples below `min_psnr` are left out.

    Raises UserError for each split that is left empty.
    """
    dataset: Dataset = {}
    errors = []
    for split, role in SPLITS.items():
        floor = config.min_psnr if split == "train" else 0.0
        made = [(s, one) for s, index in collected.indices[split].items() for one in index.pairs]
        kept = [(scene, one) for scene, one in made if one.psnr >= floor]
        dataset[split] = dict(_entry(scene, one, config.prompt) for scene, one in kept)
        if not kept:
            errors.append(_empty(role, made, floor))
    raise_all(errors)
    return dataset


def check_dataset(path: Path, study: StudyConfig, look: bool = True) -> Verdict:
    """Judge a data set on disk before anything is tuned on it; `Verdict.enforce` raises.

    Finds files of scenes that may not teach, of the other split, in the wrong place of a triple,
    outside the pairs folder, absent, changed or of unequal sizes, and photographs in two roles.
    Without `look`, photographs are compared by their bytes alone, which takes a moment.
    """
    return judge_dataset(read_json(path), study, collect(study), path, look=look)


def measured(study: StudyConfig) -> list[Subject]:
    """Scenes that no fixer may have learnt from: internal-eval, downstream and reserved ones."""
    scenes = dict.fromkeys((*study.internal_eval_scenes, *_measured(study)))
    return [*map(photographed.prepared, scenes)]


def judge_dataset(
    dataset: Mapping[str, Any],
    study: StudyConfig,
    collected: Collected,
    where: object,
    look: bool = True,
) -> Verdict:
    """The verdict on a data set, whose hash names the scenes, their roles and every image."""
    errors = [*collected.errors]
    lines: list[str] = []
    roles = {scene: role for role, scenes in _lists(study).items() for scene in scenes}
    for split, role in SPLITS.items():
        entries = dataset.get(split)
        if not isinstance(entries, Mapping) or not entries:
            got, expected = f"no samples in `{split}`", f"{split}: {{id: {{image: ...}}}}"
            errors.append(UserError(where, got, expected=expected, fix="run `dvc repro manifest`"))
            continue
        judge = Split(role, collected.indices[split], roles)
        for name, entry in entries.items():
            errors += judge.faults(f"{where}  {split}.{name}", entry)
            lines.append(json.dumps([split, *judge.digests(entry)]))
    for extra in sorted(set(dataset) - set(SPLITS)):
        errors.append(UserError(where, f"a split {extra!r}", expected=" and ".join(SPLITS)))
    indices = [index for scenes in collected.indices.values() for index in scenes.values()]
    errors += [error for index in indices for error in misused(index)]
    errors += shared_contents(_contents(collected))
    case = Case(_lists(study), {index.scene: index.group for index in indices}, dotted)
    errors += judge_roles(case)
    if look and not errors:
        errors += near_duplicates(_pictures(study, collected))
    content = text_hash(*sorted(lines))
    notes = (*notes_on_roles(case), *_not_compared(study))
    return Verdict(_shortened(errors, where), notes, case.by_role(), content)


def judge_catalogue(
    study: StudyConfig, collected: Collected, groups: Mapping[str, str], where: Where
) -> Verdict:
    """What only stage `manifest` can see: groups of the catalogue, photographs that are measured.

    Photographs of downstream and reserved scenes are compared where those scenes are prepared.
    """
    case = Case(_lists(study), groups, where)
    errors = judge_roles(case)
    for scenes in collected.indices.values():
        for scene, index in scenes.items():
            if people(groups.get(scene, index.group)) != people(index.group):
                got, fix = f"group {index.group}", "run `dvc repro pairs manifest`"
                expected = f"{groups[scene]}, as in `scenes:`"
                errors.append(UserError(layout.pairs(scene), got, expected=expected, fix=fix))
    found = [*_contents(collected)]
    for scene in _measured(study):
        if layout.scene(scene).is_dir():
            found += photographs(_MEASURED, Scene.read(layout.scene(scene)))
    errors += shared_contents(found)
    return Verdict(tuple(errors), (), case.by_role())


def _lists(study: StudyConfig) -> dict[str, Names]:
    """Scenes by role. Written out, so that stages depend on these keys of the study alone."""
    return {
        "tuning_scenes": study.tuning_scenes,
        "internal_eval_scenes": study.internal_eval_scenes,
        "downstream_scenes": study.downstream_scenes,
        RESERVED: study.reserved_scenes,
    }


def _measured(study: StudyConfig) -> list[str]:
    return list(dict.fromkeys((*study.downstream_scenes, *study.reserved_scenes)))


def _not_compared(study: StudyConfig) -> Iterator[str]:
    """A note on scenes whose photographs are not here to be compared with the pairs'."""
    absent = [scene for scene in _measured(study) if not layout.scene(scene).is_dir()]
    if absent:
        yield f"not prepared, so not compared with the pairs: {', '.join(absent)}"


def _pictures(study: StudyConfig, collected: Collected) -> dict[str, Pictures]:
    """Photographs by role and scene, of learning scenes also those that lie in pairs."""
    found: dict[str, Pictures] = {
        f"study.{role}": {scene: taught(index) for scene, index in collected.indices[split].items()}
        for split, role in SPLITS.items()
    }
    return found | {_MEASURED: {scene: prepared(scene) for scene in _measured(study)}}


def _index(scene: str, split: str) -> SampleIndex:
    """Pairs of a scene. Raises UserError when they are not what git knows, or of another split."""
    folder = layout.pairs(scene)
    index = read_index(folder)
    if (index.scene, index.split) != (scene, split):
        raise UserError(
            folder / "pairs.json", f"{index.split} pairs of {index.scene}",
            expected=f"{split} pairs of {scene}",
            fix=f"run `python -m stages.pairs --scene {scene} --split {split}`",
        )  # fmt: skip
    known = layout.pairs_metrics(scene)
    if read_json(known).get("digest") != index.digest:
        raise UserError(
            folder / "pairs.json", f"not the pairs that {known} knows",
            expected="the same digest in both", fix="run `dvc checkout`, or `dvc repro pairs`",
        )  # fmt: skip
    return index


def _entry(scene: str, pair: SampleRecord, prompt: str) -> tuple[str, dict[str, str]]:
    paths = {kind: path_of(scene, kind, pair) for kind in KINDS}
    return f"{scene}__{pair.name}", {**paths, "prompt": prompt}


def _empty(role: str, made: list[tuple[str, SampleRecord]], floor: float) -> UserError:
    if not made:
        fix = "name scenes there, then run `dvc repro manifest`"
        return UserError(f"study.{role}", "no pairs", expected="at least one scene", fix=fix)
    best = max(pair.psnr for _, pair in made)
    return UserError(
        "manifest.min_psnr", f"{floor} dB leaves none of {len(made)} pairs of study.{role}",
        expected=f"at most {best} dB, the best of them", fix="lower it",
    )  # fmt: skip


def _contents(collected: Collected) -> Iterator[tuple[str, object, str]]:
    """(role, place, SHA-256) of every photograph of the scenes that have pairs."""
    for split, role in SPLITS.items():
        for scene, index in collected.indices[split].items():
            for kind, found in index.photographs.items():
                for place, digest in found.items():
                    yield f"{kind} views of {role}", f"{layout.scene(scene)}  {place}", digest


def _shortened(errors: list[UserError], where: object) -> tuple[UserError, ...]:
    distinct = list({str(error): error for error in errors}.values())
    more = len(distinct) - _MOST_ERRORS
    if more <= 0:
        return tuple(distinct)
    return (*distinct[:_MOST_ERRORS], UserError(where, f"{more} more errors of this kind"))
