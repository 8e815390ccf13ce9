"""How well the leak guard separates changed copies of an image from others of the same room.

    python -m benchmarks.leak_guard [--raw data/raw] [--real FOLDER] [--every 4] [--out FILE]

`--raw` has the demo's sequences (`dvc repro demo`), `--real` a folder of real captures, each with
its `images`; one with a folder per camera is a video. Every `--every`-th image is changed.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks import splat_cases as cases
from benchmarks.command_line import launch
from stages.samples.similarity import (
    MIN_AGREEMENT,
    Gallery,
    Thumbnail,
    agreement,
    matches,
    thumbnail,
)
from stages.scenes.images import Pixels, read_image, write_png

Change = Callable[[Image.Image], Image.Image]


def jpeg(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cropped(left: float, top: float, right: float, bottom: float) -> Change:
    """Crop each side by px, or by a share of the image's side if below 1."""

    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        cut = [
            round(amount * side) if 0 < amount < 1 else round(amount)
            for amount, side in zip((left, top, right, bottom), 2 * image.size, strict=True)
        ]
        return image.crop((cut[0], cut[1], width - cut[2], height - cut[3]))

    return change


def resized(share: float) -> Change:
    return lambda image: image.resize(
        (round(share * image.width), round(share * image.height)), Image.Resampling.LANCZOS
    )


def lit(factor: float) -> Change:
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def together(*changes: Change) -> Change:
    def change(image: Image.Image) -> Image.Image:
        for one in changes:
            image = one(image)
        return image

    return change


CHANGES: dict[str, Change] = {
    "JPEG, quality 95": jpeg(95),
    "JPEG, quality 50": jpeg(50),
    "mirrored": mirrored,
    "1 px cut off": cropped(1, 0, 0, 0),
    "8 px cut off two sides": cropped(8, 8, 0, 0),
    "a twentieth cut off each side": cropped(0.05, 0.05, 0.05, 0.05),
    "half the size": resized(0.5),
    "a quarter of the size": resized(0.25),
    "8 % brighter": lit(1.08),
    "15 % darker": lit(0.85),
    "mirrored, cut, 0.6 of the size, brighter, quality 50": together(
        mirrored, cropped(5, 3, 2, 4), resized(0.6), lit(1.1), jpeg(50)
    ),
    "mirrored, cut, 0.3 of the size, darker, quality 50": together(
        mirrored, cropped(9, 0, 6, 12), resized(0.3), lit(0.9), jpeg(50)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--real", type=Path, help="folders of real captures")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    demo = [sorted(one.glob("images/*/*.jpg")) for one in sorted(args.raw.glob("hi4d_*"))]
    real = [image_paths(one) for one in sorted(args.real.iterdir())] if args.real else []
    begin = time.perf_counter()
    known = {path: thumbnail(path) for paths in (*demo, *real) for path in paths}
    reading_s = (time.perf_counter() - begin) / len(known)
    rows = [*of_changes([*demo, *real], known, args.every)]
    rows += [
        largest("photographs of other demo scenes", of_others(demo, known)),
        largest("one room and camera, other people", of_other_people(demo, known)),
        largest("one scene and camera, 12 frames apart", of_timestamps(demo, known, apart=1)),
    ]
    films = [one for one in real if one[0].parent.name != "images"]
    if films:
        rows.append(largest("neighbouring frames of a film", of_timestamps(films, known, apart=1)))
        rows.append(largest("frames of a film, 5 apart", of_timestamps(films, known, apart=5)))
    walks = [one for one in real if one not in films]
    if walks:
        single = [[path] for one in walks for path in one]
        rows.append(
            largest("photographs of a walk, each among the others", of_others(single, known))
        )
    half = [known[path] for paths in demo[: len(demo) // 2] for path in paths]
    rest = [known[path] for paths in demo[len(demo) // 2 :] for path in paths]
    begin = time.perf_counter()
    leaks = matches(half, rest)
    matching_s = time.perf_counter() - begin
    assert not leaks, "images of two demo scenes match"
    label = f"{len(half)} photographs among {len(rest)}"
    rows.append(cases.row("reading a photograph", 1e3 * reading_s, "ms", device="cpu"))
    rows.append(cases.row(label, matching_s, "s", device="cpu"))
    cases.show(rows)
    cases.write_rows(args.out, rows)


def image_paths(capture: Path) -> list[Path]:
    """All images of a capture, camera by camera."""
    paths = (capture / "images").rglob("*")
    return sorted(path for path in paths if path.suffix.lower() in (".jpg", ".png"))


def of_changes(
    scenes: Sequence[Sequence[Path]], known: dict[Path, Thumbnail], every: int
) -> Iterable[cases.Row]:
    """For each change, the least agreement of an image with its changed copy; all must match."""
    paths = [path for scene in scenes for path in scene]
    gallery = Gallery([known[path] for path in paths])
    for name, change in CHANGES.items():
        least = 1.0
        for place in range(0, len(paths), every):
            with Image.open(paths[place]) as image:
                changed = change(image.convert("RGB"))
            nearest, likeness = gallery.best_match(
                thumbnail_of(np.asarray(changed, np.float32) / 255)
            )
            same = agreement(known[paths[nearest]], known[paths[place]]) >= MIN_AGREEMENT
            least = min(least, likeness if same else -1.0)
        yield cases.row(name, least, "at least", target=MIN_AGREEMENT, device="cpu")


def thumbnail_of(image: Pixels) -> Thumbnail:
    """The thumbnail of an image in memory."""
    with tempfile.TemporaryDirectory() as folder:
        write_png(Path(folder, "one.png"), image)
        return thumbnail(Path(folder, "one.png"))


def of_others(scenes: Sequence[Sequence[Path]], known: dict[Path, Thumbnail]) -> list[float]:
    """Agreement of each image with the most similar one of other scenes."""
    agreements = []
    for place, scene in enumerate(scenes):
        others = [path for k, one in enumerate(scenes) if k != place for path in one]
        gallery = Gallery([known[path] for path in others])
        agreements += [gallery.best_match(known[path])[1] for path in scene]
    return agreements


def of_other_people(scenes: Sequence[Sequence[Path]], known: dict[Path, Thumbnail]) -> list[float]:
    """Agreement of an image with itself after pasting in the people of another scene."""
    agreements = []
    for place, scene in enumerate(scenes):
        for path in scene[::2]:
            for other in (*scenes[:place], *scenes[place + 1 :]):
                same = next(one for one in other if one.parts[-2:] == path.parts[-2:])
                mask = same.parents[2] / "seg/img_seg_mask" / same.parts[-2] / "all"
                people = read_image(mask / f"{same.stem}.png") > 0
                composite = np.where(people, read_image(same), read_image(path))
                agreements.append(agreement(known[path], thumbnail_of(composite)))
    return agreements


def of_timestamps(
    scenes: Sequence[Sequence[Path]], known: dict[Path, Thumbnail], apart: int
) -> list[float]:
    """Agreement of images of one camera that are `apart` frames apart."""
    return [
        agreement(known[first], known[second])
        for scene in scenes
        for first, second in zip(scene, scene[apart:], strict=False)
        if first.parent == second.parent
    ]


def largest(name: str, agreements: Sequence[float]) -> cases.Row:
    """The row of the largest agreement of different images."""
    return cases.row(
        f"{name} ({len(agreements)})",
        max(agreements),
        "at most",
        target=MIN_AGREEMENT,
        device="cpu",
    )


if __name__ == "__main__":
    launch(main)
