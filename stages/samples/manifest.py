"""The dataset that a fixer is tuned on, in DiFix's own format, and its check for leaks.

`dataset.json` is {"train": {id: {"image", "target_image", "ref_image", "prompt"}}, "test": {...}}
with paths relative to the root of the repository. It may be edited by hand as long as nothing
leaks: every file must be one that stage `pairs` wrote, unchanged, of a scene in the split's role.
pairs.json has the hashes of these files; its own digest is in git.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.run.errors import UserError, raise_all
from stages.run.files import read_json, text_hash
from stages.run.plurals import counted
from stages.samples.faults import SplitCheck, index_faults
from stages.samples.index import (
    INDEX_FILE,
    KINDS,
    SampleIndex,
    SamplePaths,
    SampleRecord,
    imported_places,
    read_index,
)
from stages.samples.leaks import image_digests, index_subject, scene_subject, shared_digests
from stages.samples.near_duplicates import (
    SceneImages,
    near_duplicates,
    sample_images,
    scene_images,
)
from stages.scenes.config import SPLITS, ManifestConfig
from stages.scenes.scene import Scene
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.identity import people
from stages.scenes.study.overlap import Subject
from stages.scenes.study.roles import (
    IMPORTS,
    RESERVED,
    Case,
    Names,
    Verdict,
    Where,
    dotted,
    judge_roles,
    notes_on_roles,
)

# By split, the role of the scenes that its samples are of.
_ROLES = dict(zip(SPLITS, ("tuning_scenes", "internal_eval_scenes"), strict=True))
_MEASURED = "downstream and reserved scenes"
_MAX_ERRORS = 20  # of one dataset; thousands of absent files have one cause

Dataset = dict[str, dict[str, dict[str, str]]]


@dataclass(frozen=True)
class Collected:
    """Samples of every tuning and internal-eval scene, and what is wrong with their indices."""

    indices: Mapping[str, Mapping[str, SampleIndex]]  # split -> scene -> samples
    errors: tuple[UserError, ...]
    paths: SamplePaths

    @property
    def all_indices(self) -> list[SampleIndex]:
        """Indices of both splits."""
        return [index for scenes in self.indices.values() for index in scenes.values()]


def collect(study: StudyConfig, paths: SamplePaths) -> Collected:
    """Read the samples of all tuning and internal-eval scenes, and of imports."""
    errors: list[UserError] = []
    indices: dict[str, dict[str, SampleIndex]] = {}
    for split, role in _ROLES.items():
        indices[split] = {}
        lists = _scenes_by_role(study)
        for scene in (*lists[role], *lists[IMPORTS[role]]):
            try:
                stage = "pairs" if scene in lists[role] else "pairs_import"
                indices[split][scene] = _checked_index(scene, split, paths, stage)
            except UserError as error:
                errors.append(error)
    return Collected(indices, tuple(errors), paths)


def build(collected: Collected, config: ManifestConfig) -> Dataset:
    """The dataset of all samples, without training samples below `min_psnr`.

    Raises UserError for each split that is left empty.
    """
    dataset: Dataset = {}
    errors = []
    for split, role in _ROLES.items():
        floor = config.min_psnr if split == "train" else 0.0
        samples = [
            (collected.paths.samples(scene), scene, record)
            for scene, index in collected.indices[split].items()
            for record in index.pairs
        ]
        kept = [sample for sample in samples if sample[-1].psnr >= floor]
        dataset[split] = dict(_entry(*sample, config.prompt) for sample in kept)
        if not kept:
            errors.append(_empty(role, [record for *_, record in samples], floor))
    raise_all(errors)
    return dataset


def check_dataset(
    path: Path, study: StudyConfig, paths: SamplePaths, by_content: bool = True
) -> Verdict:
    """The verdict on a dataset on disk before anything is tuned on it; `Verdict.enforce` raises.

    Refused are files of scenes in another role or split, under the wrong key, outside the samples'
    folder, absent, changed or of unequal sizes, and images in two roles. Without `by_content`,
    images count as equal only where their bytes are, which is much faster to check.
    """
    return judge_dataset(read_json(path), study, collect(study, paths), path, by_content=by_content)


def held_out_subjects(study: StudyConfig, paths: SamplePaths) -> list[Subject]:
    """Scenes that no fixer may be trained on: internal-eval, downstream and reserved ones."""
    scenes = dict.fromkeys((*study.internal_eval_scenes, *_measured(study)))
    imports = (read_index(paths.samples(name)) for name in study.internal_eval_imports)
    return [
        *(scene_subject(scene, paths.scene(scene)) for scene in scenes),
        *map(index_subject, imports),
    ]


def judge_dataset(
    dataset: Mapping[str, Any],
    study: StudyConfig,
    collected: Collected,
    where: object,
    by_content: bool = True,
) -> Verdict:
    """The verdict on a dataset; its hash covers the scenes, their roles and every image.

    Args:
        dataset: content of dataset.json, perhaps edited.
        study: roles of the scenes.
        collected: the samples that stage `pairs` wrote.
        where: the file, for the messages.
        by_content: compare images by their content too, not by their bytes alone.
    """
    errors = [*collected.errors]
    lines: list[str] = []
    scenes_by_role, imported = _scenes_by_role(study), _imported(study)
    roles = {scene: role for role, scenes in scenes_by_role.items() for scene in scenes}
    for split, role in _ROLES.items():
        entries = dataset.get(split)
        if not isinstance(entries, Mapping) or not entries:
            got, expected = f"no samples in `{split}`", f"{split}: {{id: {{image: ...}}}}"
            errors.append(UserError(where, got, expected=expected, fix="run `dvc repro manifest`"))
            continue
        check = SplitCheck(role, collected.indices[split], roles, collected.paths)
        for name, entry in entries.items():
            errors += check.faults(f"{where}  {split}.{name}", entry)
            lines.append(json.dumps([split, *check.digests(entry)]))
    for extra in sorted(set(dataset) - set(SPLITS)):
        errors.append(UserError(where, f"a split {extra!r}", expected=" and ".join(SPLITS)))
    indices = collected.all_indices
    for index in indices:
        errors += index_faults(index, collected.paths.samples(index.scene))
    errors += shared_digests(_index_digests(collected))
    case = Case(
        scenes_by_role,
        {index.scene: index.group for index in indices if index.scene not in imported},
        dotted,
        {index.scene: index.group for index in indices if index.scene in imported},
    )
    errors += judge_roles(case)
    if by_content and not errors:
        errors += near_duplicates(_images_by_role(study, collected))
    content = text_hash(*sorted(lines))
    notes = (*notes_on_roles(case), *_not_compared(study, collected.paths))
    return Verdict(_shortened(errors, where), notes, case.by_role(), content)


def judge_catalogue(
    study: StudyConfig,
    collected: Collected,
    groups: Mapping[str, str],
    imports: Mapping[str, str],
    where: Where,
) -> Verdict:
    """The verdict on what stage `manifest` alone compares: the catalogue's groups, measured scenes.

    Images of downstream and reserved scenes are compared where those scenes are prepared. `groups`
    is by scene, `imports` by import, and `where` names the line of a key in params.yaml.
    """
    case, paths = Case(_scenes_by_role(study), groups, where, imports), collected.paths
    errors = judge_roles(case)
    for index in collected.all_indices:
        scene, known = index.scene, imports if index.scene in imports else groups
        if people(known.get(scene, index.group)) != people(index.group):
            got, fix = f"group {index.group}", "run `dvc repro manifest`"
            expected = f"{known[scene]}, as in `{case.entry(scene)[0]}:`"
            errors.append(UserError(paths.samples(scene), got, expected=expected, fix=fix))
    digests = [*_index_digests(collected)]
    for scene in _measured(study):
        if paths.scene(scene).is_dir():
            digests += image_digests(_MEASURED, Scene.read(paths.scene(scene)))
    errors += shared_digests(digests)
    return Verdict(tuple(errors), (), case.by_role())


def _scenes_by_role(study: StudyConfig) -> dict[str, Names]:
    """Scenes by role. Written out, so that stages depend on these keys of the study alone."""
    return {
        "tuning_scenes": study.tuning_scenes,
        "internal_eval_scenes": study.internal_eval_scenes,
        "downstream_scenes": study.downstream_scenes,
        RESERVED: study.reserved_scenes,
        "tuning_imports": study.tuning_imports,
        "internal_eval_imports": study.internal_eval_imports,
    }


def _imported(study: StudyConfig) -> set[str]:
    return {*study.tuning_imports, *study.internal_eval_imports}


def _measured(study: StudyConfig) -> list[str]:
    return list(dict.fromkeys((*study.downstream_scenes, *study.reserved_scenes)))


def _not_compared(study: StudyConfig, paths: SamplePaths) -> Iterator[str]:
    """A note on scenes that are not prepared, whose images are therefore not compared."""
    absent = [scene for scene in _measured(study) if not paths.scene(scene).is_dir()]
    if absent:
        yield f"not prepared, so not compared with the pairs: {', '.join(absent)}"


def _images_by_role(study: StudyConfig, collected: Collected) -> dict[str, SceneImages]:
    """Images by role and scene; of tuning and internal-eval scenes also those in samples."""
    paths = collected.paths
    images: dict[str, SceneImages] = {
        f"study.{role}": {
            scene: sample_images(index, paths.samples(scene), paths.scene(scene))
            for scene, index in collected.indices[split].items()
        }
        for split, role in _ROLES.items()
    }
    return images | {
        _MEASURED: {scene: scene_images(paths.scene(scene)) for scene in _measured(study)}
    }


def _checked_index(scene: str, split: str, paths: SamplePaths, stage: str) -> SampleIndex:
    """Samples of a scene. Raises UserError when git has another digest, or of another split."""
    folder, metrics_file = paths.samples(scene), paths.metrics(scene)
    index = read_index(folder)
    if (index.scene, index.split) != (scene, split):
        raise UserError(
            folder / INDEX_FILE,
            f"{index.split} pairs of {index.scene}",
            expected=f"{split} pairs of {scene}",
            fix=f"run `dvc repro {_stage(split, stage)}@{scene}`",
        )
    if read_json(metrics_file).get("digest") != index.digest:
        raise UserError(
            folder / INDEX_FILE,
            f"not the pairs that {metrics_file} was written for",
            expected="the same digest in both",
            fix=f"run `dvc checkout`, or `dvc repro {_stage(split, stage)}@{scene}`",
        )
    return index


def _stage(split: str, stage: str) -> str:
    return f"{stage}_test" if split == "test" else stage


def _entry(
    folder: Path, scene: str, record: SampleRecord, prompt: str
) -> tuple[str, dict[str, str]]:
    kinds = (kind for kind in KINDS if kind in record.files)
    paths = {kind: record.path(folder, kind).as_posix() for kind in kinds}
    return f"{scene}__{record.name}", {**paths, "prompt": prompt}


def _empty(role: str, records: list[SampleRecord], floor: float) -> UserError:
    if not records:
        fix = "name scenes there, then run `dvc repro manifest`"
        return UserError(f"study.{role}", "no pairs", expected="at least one scene", fix=fix)
    best = max(record.psnr for record in records)
    return UserError(
        "manifest.min_psnr",
        f"{floor} dB leaves none of {len(records)} pairs of study.{role}",
        expected=f"at most {best} dB, the best of them",
        fix="lower it",
    )


def _index_digests(collected: Collected) -> Iterator[tuple[str, object, str]]:
    """(role, place, SHA-256) of every image of the scenes that have samples.

    The place of an import's image is its copy among the samples: no prepared scene has it.
    """
    for split, role in _ROLES.items():
        for scene, index in collected.indices[split].items():
            imported = imported_places(index, collected.paths.samples(scene))
            for kind, images in index.photographs.items():
                for name, digest in images.items():
                    place = f"{collected.paths.scene(scene)}  {name}"
                    yield f"{kind} views of {role}", imported.get((name, digest), place), digest


def _shortened(errors: list[UserError], where: object) -> tuple[UserError, ...]:
    distinct = list({str(error): error for error in errors}.values())
    more = len(distinct) - _MAX_ERRORS
    if more <= 0:
        return tuple(distinct)
    others = UserError(where, f"{counted(more, 'more error')} of this kind")
    return (*distinct[:_MAX_ERRORS], others)
