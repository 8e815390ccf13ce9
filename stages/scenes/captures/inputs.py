"""What a capture may be besides images and COLMAP datasets: a video, or nerfstudio's dataset."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.run.plurals import counted
from stages.scenes.captures.transforms_dataset import has_transforms, write_dataset
from stages.scenes.captures.video_frames import extract_sharp_frames, video_of


@contextmanager
def as_images(source: Path, fps: float) -> Iterator[Path]:
    """A folder of images, or a COLMAP dataset, for the block: the source, or what is made of it.

    Of a video the sharp frames at a rate of `fps`; of nerfstudio's `transforms.json` a dataset.
    """
    video = video_of(source)
    with tempfile.TemporaryDirectory() as scratch:
        if video is not None:
            folder = Path(scratch) / video.stem
            count = extract_sharp_frames(video, folder, fps)
            print(f"{video}: {counted(count, 'sharp frame')}, {fps:g} a second")
            yield folder
        elif has_transforms(source):
            folder = Path(scratch) / source.resolve().name
            count = write_dataset(source, folder)
            print(f"{source}: {counted(count, 'image')} with poses from transforms.json")
            yield folder
        else:
            yield source
