"""Scenes as subjects, by the photographs that are here."""

from stages.run import layout
from stages.run.files import file_hash
from stages.samples.index import SampleIndex
from stages.scenes.scene import Scene
from stages.scenes.study.overlap import Subject, named


def prepared(scene: str) -> Subject:
    """A scene with its photographs, where it is prepared here."""
    folder = layout.scene(scene)
    if not folder.is_dir():
        return named(scene)
    found = Scene.read(folder)
    digests = {file_hash(view.image_path) for view in found.all_views}
    return Subject(scene, found.group, tuple(sorted(digests)))


def paired(index: SampleIndex) -> Subject:
    """A scene as its pairs know it."""
    digests = {one for found in index.photographs.values() for one in found.values()}
    return Subject(index.scene, index.group, tuple(sorted(digests)))
