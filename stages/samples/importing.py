"""Samples that another program wrote in DiFix's form, taken over as those of a scene of their own.

The form is {"train": {id: {"image", "target_image", "ref_image", "prompt"}}, "test": {...}}. What
is taken over looks as if stage `pairs` had written it, so that every later check holds for it: the
images lie under the import's name, and pairs.json has their hashes. Cameras are not known; a
sample's `camera` is its id.
"""

import fnmatch
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.quality.metrics.psnr import HIGHEST_PSNR_DB, psnr
from stages.run.errors import UserError, raise_all
from stages.run.files import RepeatedKeys, file_hash, read_json
from stages.run.plurals import counted
from stages.run.progress import Progress
from stages.samples.index import IMPORTED, KINDS, SampleIndex, SampleRecord
from stages.scenes.config import ImportEntry
from stages.scenes.images import Pixels, image_size, is_plain_png, read_image, write_png

DATASET_FILE = "dataset.json"
_REQUIRED = ("image", "target_image")
_KEYS = {*KINDS, "prompt"}
_MAX_ERRORS = 20  # of one dataset; thousands of absent files have one cause


@dataclass(frozen=True)
class ForeignSample:
    """A sample of a foreign dataset; its files by kind exist, inside the dataset's folder."""

    name: str
    files: Mapping[str, Path]


def read_foreign(folder: Path, entry: ImportEntry, split: str, prompt: str) -> list[ForeignSample]:
    """The samples that an entry takes of `folder`/dataset.json, in the file's order.

    Raises UserError that lists what is wrong: missing files, files outside the folder, images of
    unequal sizes, references of some samples only, other prompts, samples that are listed twice.

    Args:
        folder: the dataset, with its images.
        entry: of `imports` in params.yaml.
        split: train or test of the study, which the entry's own `split` overrules.
        prompt: the text that all samples must have.
    """
    path = folder / DATASET_FILE
    split = entry.part(split)
    entries = _entries(path, split)
    names = fnmatch.filter(entries, entry.samples)
    chosen = {name: entries[name] for name in names}
    if not chosen:
        raise UserError(
            path,
            f"none of {len(entries)} samples in `{split}` is like {entry.samples!r}",
            expected=f"ids such as {next(iter(entries))!r}",
            fix="change `samples` of the import in params.yaml, or take it out",
        )
    root, samples, errors = folder.resolve(), [], []
    for name, content in chosen.items():
        place = f"{path}  {split}.{name}"
        files, faults = _files(place, content, root, entry.root)
        faults = faults or [
            *_size_faults(place, files),
            *_prompt_faults(place, content, prompt),
            *_same_file_faults(place, files),
        ]
        samples.append(ForeignSample(name, files))
        errors += faults
    if not errors:
        errors = [*_reference_faults(path, samples), *_repeated_faults(path, samples)]
    more = len(errors) - _MAX_ERRORS
    others = [UserError(path, counted(more, "more error"))] if more > 0 else []
    raise_all(errors[:_MAX_ERRORS] + others)
    return samples


def import_samples(
    samples: list[ForeignSample], name: str, group: str, split: str, folder: Path
) -> SampleIndex:
    """Copy the images of samples to `folder`, PNGs byte for byte; returns their index.

    Raises UserError for an image that cannot be decoded, and for a reference that is the target.
    """
    records, errors = [], []
    with Progress(f"import {name}", len(samples)) as progress:
        for number, sample in enumerate(samples):
            pixels = {kind: read_image(path) for kind, path in sample.files.items()}
            reference = pixels.get("ref_image")
            if reference is not None and np.array_equal(reference, pixels["target_image"]):
                errors.append(_copied(name, sample))
                continue
            records.append(_written(folder, f"{number:06d}", sample, pixels))
            progress.report(number + 1)
    raise_all(errors[:_MAX_ERRORS])
    targets = {f"{IMPORTED}/{one.camera}": one.files["target_image"] for one in records}
    # One sample's reference may be another's target, which is its ground truth all the same.
    known = set(targets.values())
    references = {f"{IMPORTED}/{one.camera}": one.files.get("ref_image", "") for one in records}
    sources = {key: one for key, one in references.items() if one and one not in known}
    return SampleIndex(name, group, split, {"source": sources, "target": targets}, tuple(records))


def _entries(path: Path, split: str) -> Mapping[str, Any]:
    """One split of the file. Raises UserError where there is none."""
    expected = f'{{"{split}": {{id: {{image, target_image, ref_image, prompt}}}}}}'
    fix = "write it there, in DiFix's form, beside its images; docs/data.md"
    try:
        entries = read_json(path).get(split)
    except UserError as error:
        if isinstance(error.__cause__, RepeatedKeys):
            raise
        if path.is_file():
            fix = "correct the file, or write it again; docs/data.md"
        raise UserError(error.where, error.got, expected=expected, fix=fix) from error
    if not isinstance(entries, Mapping) or not entries:
        raise UserError(path, f"no samples in `{split}`", expected=expected, fix=fix)
    return entries


def _files(
    place: str, content: Any, root: Path, prefix: str
) -> tuple[dict[str, Path], list[UserError]]:
    """A sample's files by kind, and what is wrong with its keys and paths."""
    keys = set(content) if isinstance(content, Mapping) else set()
    if not set(_REQUIRED) <= keys <= _KEYS:
        got = ", ".join(content) if isinstance(content, Mapping) else repr(content)
        fix = "write these keys, others not"
        expected = ", ".join((*KINDS, "prompt"))
        return {}, [UserError(place, f"keys {got}", expected=expected, fix=fix)]
    files, errors = {}, []
    for kind in KINDS:
        if kind not in content:
            continue
        try:
            files[kind] = _inside(f"{place}.{kind}", content[kind], root, prefix)
        except UserError as error:
            errors.append(error)
    return files, errors


def _inside(place: str, text: Any, root: Path, prefix: str) -> Path:
    """The file that a path of the dataset means. Raises UserError unless it is in its folder."""
    if not isinstance(text, str) or not text or "\0" in text:
        raise UserError(place, repr(text), expected="the path of an image")
    path = PurePosixPath(text)
    if prefix and path.is_relative_to(prefix):
        path = path.relative_to(prefix)
    try:
        found = (root / path).resolve()
        is_file = found.is_file()
    except (OSError, RuntimeError, UnicodeError) as error:  # too long, a loop of links, no text
        got = f"{text!r:.200}: no path of a file"
        raise UserError(place, got, expected="the path of an image") from error
    if not found.is_relative_to(root):
        raise UserError(
            place,
            f"{text}: outside of the dataset's folder",
            expected=f"a path below {root}, or relative to it",
            fix="move the images there; where the file was written for another folder, name that "
            "as `root` of the import in params.yaml",
        )
    if not is_file:
        fix = "copy the image there, or take the sample out"
        raise UserError(place, f"{text}: no such file", expected=str(found), fix=fix)
    return found


def _size_faults(place: str, files: Mapping[str, Path]) -> Iterator[UserError]:
    sizes = {}
    for kind, path in files.items():
        try:
            sizes[kind] = image_size(path)
        except UserError as error:
            fix = "write the image again, or take the sample out"
            yield UserError(f"{place}.{kind}", f"{path}: {error.got}", fix=fix)
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{kind} {width}x{height}" for kind, (width, height) in sizes.items())
        fix = "resize them to the target's size, pixel on pixel"
        yield UserError(place, got, expected="one size in a sample", fix=fix)


def _prompt_faults(place: str, content: Mapping[str, Any], prompt: str) -> Iterator[UserError]:
    if content.get("prompt", prompt) != prompt:
        yield UserError(
            f"{place}.prompt",
            repr(content["prompt"]),
            expected=f"{prompt!r}, as manifest.prompt: a fixer keeps the embedding of one prompt",
            fix="write one prompt into all samples, and set manifest.prompt and base.prompt to it",
        )


def _reference_faults(path: Path, samples: list[ForeignSample]) -> Iterator[UserError]:
    lacking = [sample.name for sample in samples if "ref_image" not in sample.files]
    if 0 < len(lacking) < len(samples):
        yield UserError(
            path,
            f"{len(lacking)} of {len(samples)} samples have no ref_image, such as {lacking[0]}",
            expected="a reference in each sample, or in none",
            fix="add these; or import the samples that have one by themselves, by `samples` of the "
            "import in params.yaml",
        )


def _same_file_faults(place: str, files: Mapping[str, Path]) -> Iterator[UserError]:
    if len(set(files.values())) < len(files):
        yield UserError(
            place,
            ", ".join(f"{kind} {path.name}" for kind, path in files.items()),
            expected="another file of each kind",
            fix="name the right ones, or take the sample out",
        )


def _repeated_faults(path: Path, samples: list[ForeignSample]) -> Iterator[UserError]:
    """Samples with the files of another one, and renders with several ground truths."""
    names: dict[tuple[Path, ...], list[str]] = {}
    targets: dict[Path, dict[Path, str]] = {}
    for sample in samples:
        names.setdefault(tuple(sample.files.values()), []).append(sample.name)
        image, target = (sample.files[kind] for kind in _REQUIRED)
        targets.setdefault(image, {}).setdefault(target, sample.name)
    for same in (same for same in names.values() if len(same) > 1):
        got = f"{', '.join(same)} are one sample: their files are the same"
        yield UserError(path, got, expected="each sample once", fix="keep one of them")
    for image, by_target in targets.items():
        if len(by_target) > 1:
            got = f"{', '.join(by_target.values())} have one image, {image.name}, and other targets"
            fix = "name each one's own render"
            yield UserError(path, got, expected="one ground truth of a render", fix=fix)


def _copied(name: str, sample: ForeignSample) -> UserError:
    return UserError(
        f"imports.{name}  {sample.name}",
        "ref_image is the target: a fixer would learn to copy it",
        expected="another view of the scene",
        fix="name another image, or take the sample out",
    )


def _written(
    folder: Path, name: str, sample: ForeignSample, pixels: Mapping[str, Pixels]
) -> SampleRecord:
    """Write one sample."""
    files = {}
    for kind, source in sample.files.items():
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_plain_png(source):
            shutil.copyfile(source, path)
        else:
            write_png(path, pixels[kind])
        files[kind] = file_hash(path)
    image, target = (_batch(pixels[kind]) for kind in _REQUIRED)
    return SampleRecord(
        name=name,
        camera=sample.name,
        timestamp=IMPORTED,
        ref_camera=sample.name,
        ref_timestamp=IMPORTED,
        step=None,
        left_out=False,
        poses=IMPORTED,
        psnr=round(min(psnr(image, target).item(), HIGHEST_PSNR_DB), 4),
        files=files,
    )


def _batch(image: Pixels) -> Tensor:
    """An image as a batch [1, 3, H, W]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]
