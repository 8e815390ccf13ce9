"""Reading every common kind of image, rounding, resampling, and refusal of broken files."""

import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import tifffile  # comes with scikit-image
from PIL import Image, ImageOps

from stages.run.errors import UserError
from stages.scenes import images
from stages.scenes.images import (
    focal_35mm,
    has_alpha,
    image_size,
    png_writer,
    read_image,
    read_mask,
    resize,
    resize_mask,
    stored,
    write_mask,
    write_png,
)

LEVELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3) * 3


def saved(path: Path, values: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_png_gives_all_256_levels_back(tmp_path: Path) -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    path = tmp_path / "deep" / "a.png"
    write_png(path, levels.astype(np.float32) / 255)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), levels)
    image = read_image(path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(np.rint(image * 255), levels)
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_writing_rounds_and_clips(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    values = np.array([0.4, 0.6, 99.4, 99.6, -30, 300]) / 255
    write_png(path, np.repeat(values.reshape(1, 6, 1), 3, axis=2).astype(np.float32))
    assert np.asarray(Image.open(path))[0, :, 0].tolist() == [0, 1, 99, 100, 0, 255]


def test_stored_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    values = np.linspace(-0.1, 1.1, 3 * 997).reshape(1, 997, 3)
    made = np.concatenate([values, np.arange(3 * 997).reshape(1, 997, 3) % 256 / 255])
    for image in (made, made.astype(np.float32)):
        write_png(path, image)
        np.testing.assert_array_equal(stored(image), read_image(path), strict=True)


def test_images_written_in_threads_have_the_same_bytes(tmp_path: Path) -> None:
    made = np.random.default_rng(0).random((9, 8, 6, 3)).astype(np.float32)
    with png_writer() as write:
        for number, image in enumerate(made):
            write(tmp_path / "new" / f"{number}.png", image)
    for number, image in enumerate(made):
        write_png(tmp_path / "one.png", image)
        expected = (tmp_path / "one.png").read_bytes()
        assert (tmp_path / "new" / f"{number}.png").read_bytes() == expected


@pytest.mark.parametrize("count", [1, 9])
def test_an_image_that_cannot_be_written_in_a_thread_is_an_error(
    tmp_path: Path, count: int
) -> None:
    """Of the last image at the block's end, of another when a later one is written."""
    written = []

    def write_all() -> None:
        with png_writer() as write:
            for number in range(count):
                write(tmp_path / "file" / f"{number}.png", np.zeros((2, 2, 3), np.float32))
                written.append(number)

    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_all()
    assert len(written) in ({1} if count == 1 else range(1, 5))


def test_few_images_wait_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def slow(path: Path, image: np.ndarray) -> None:
        time.sleep(0.01)
        done.append(path)

    monkeypatch.setattr(images, "write_png", slow)
    monkeypatch.setattr(images, "available_cores", lambda: 2)
    paths = [Path(f"{number}.png") for number in range(9)]
    with png_writer() as write:
        for count, path in enumerate(paths, 1):
            write(path, np.zeros((2, 2, 3), np.float32))
            assert count - len(done) <= 2
    assert sorted(done) == paths


def test_orientation_of_a_phone_is_applied(tmp_path: Path) -> None:
    """Orientation 6: the stored rows are the columns of the upright image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.png", LEVELS, exif=exif)
    np.testing.assert_array_equal(np.rint(read_image(path) * 255), np.rot90(LEVELS, -1))
    assert image_size(path) == (6, 4)


def test_plain_image_has_its_stored_size(tmp_path: Path) -> None:
    assert image_size(saved(tmp_path / "a.png", LEVELS)) == (4, 6)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path / "a.png", LEVELS, mode)
    expected = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    np.testing.assert_array_equal(read_image(path), expected)


def test_sixteen_bits_keep_their_scale(tmp_path: Path) -> None:
    grey = np.array([[0, 32768], [65535, 257]], np.uint16)
    image = read_image(saved(tmp_path / "a.png", grey))
    np.testing.assert_allclose(image, np.repeat(grey[..., None] / 65535, 3, axis=2), atol=1e-6)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_over_black(tmp_path: Path, mode: str) -> None:
    values = np.full((2, 2, 4), 200, np.uint8)
    values[..., 3] = [[0, 255], [51, 255]]
    image = read_image(saved(tmp_path / "a.png", values, mode))
    np.testing.assert_allclose(image[..., 0] * 255, [[0, 200], [40, 200]], atol=0.51)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.8])
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match="not a whole image") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
def test_a_missing_image_is_named(tmp_path: Path, read: object) -> None:
    with pytest.raises(UserError, match=r"gone\.png: no such file"):
        read(tmp_path / "gone.png")


def test_a_text_file_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("<html>403 expired link</html>")
    for read in (read_image, read_mask, image_size):
        with pytest.raises(UserError, match="not a whole image"):
            read(path)


def test_shrinking_averages_instead_of_skipping() -> None:
    """A checkerboard of single pixels becomes grey; nearest or plain bilinear gives stripes."""
    rows, columns = np.mgrid[0:64, 0:64]
    board = np.repeat(((rows + columns) % 2)[..., None], 3, axis=2).astype(np.float32)
    small = resize(board, 16, 16)
    np.testing.assert_allclose(small[2:-2, 2:-2], 0.5, atol=0.01)
    noise = np.random.default_rng(0).random((60, 80, 3), dtype=np.float32)
    np.testing.assert_allclose(resize(noise, 20, 15).mean((0, 1)), noise.mean((0, 1)), atol=5e-3)


@pytest.mark.parametrize(("width", "height"), [(20, 30), (80, 45), (33, 90)])
def test_resizing_keeps_every_place_of_the_image(width: int, height: int) -> None:
    """A ramp over the image, sampled at pixel centres, stays that ramp: no half-pixel shift."""
    x = (np.arange(40) + 0.5) / 40
    y = (np.arange(60) + 0.5) / 60
    ramp = np.stack([np.tile(x, (60, 1)), np.tile(y[:, None], (1, 40)), np.full((60, 40), 0.3)], 2)
    resized = resize(ramp.astype(np.float32), width, height)
    assert resized.shape == (height, width, 3)
    assert resized.dtype == np.float32
    edge = 6 * max(1, round(max(width / 40, height / 60)))
    inner = np.s_[edge:-edge, edge:-edge]
    expected_x = np.tile((np.arange(width) + 0.5) / width, (height, 1))
    expected_y = np.tile(((np.arange(height) + 0.5) / height)[:, None], (1, width))
    np.testing.assert_allclose(resized[..., 0][inner], expected_x[inner], atol=2e-3)
    np.testing.assert_allclose(resized[..., 1][inner], expected_y[inner], atol=2e-3)
    np.testing.assert_allclose(resized[..., 2], 0.3, atol=1e-6)


def test_resizing_stays_within_the_range() -> None:
    """Lanczos overshoots at edges."""
    edge = np.zeros((32, 32, 3), np.float32)
    edge[:, 16:] = 1
    resized = resize(edge, 50, 50)
    assert resized.min() >= 0
    assert resized.max() <= 1


def test_same_size_is_left_alone() -> None:
    image = np.random.default_rng(0).random((5, 7, 3), dtype=np.float32)
    assert resize(image, 7, 5) is image


def test_masks_of_one_or_more_channels_agree(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((9, 7)) > 0.5
    write_mask(tmp_path / "ours.png", mask)
    saved(tmp_path / "small_values.png", mask.astype(np.uint8))
    blue = np.zeros((9, 7, 3), np.uint8)
    blue[mask, 2] = 128
    saved(tmp_path / "colour.png", blue)
    opaque = np.dstack([blue, np.full((9, 7), 255, np.uint8)])
    saved(tmp_path / "opaque.png", opaque)
    saved(tmp_path / "grey_alpha.png", opaque[..., ::-1][..., [1, 1, 1, 0]], "LA")
    saved(tmp_path / "bits.png", mask.astype(np.uint8) * 255, "1")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_mask(path), mask, err_msg=path.name)


def test_a_shrunken_mask_keeps_pixels_covered_by_half() -> None:
    mask = np.zeros((4, 8), bool)
    mask[:2, :2] = True  # all four
    mask[0, 2:4] = True  # two of four
    mask[2, 4] = True  # one of four
    assert resize_mask(mask, 4, 2).tolist() == [[True, True, False, False], [False] * 4]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "mode", "options"),
    [
        (".png", "RGB", {}),
        (".png", "L", {}),
        (".png", "P", {}),
        (".tif", "RGB", {}),
        (".tif", "L", {"compression": "tiff_lzw"}),
        (".webp", "RGB", {"lossless": True}),
    ],
)
def test_every_orientation_is_that_of_pillow(
    tmp_path: Path, orientation: int, suffix: str, mode: str, options: dict
) -> None:
    """And the stored pixels are those that COLMAP reads; of a TIFF Pillow turns them by itself."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a{suffix}", LEVELS, mode, exif=exif, **options)
    stored = np.asarray(Image.fromarray(LEVELS).convert(mode).convert("RGB"))
    expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    np.testing.assert_array_equal(np.rint(read_image(path) * 255), np.asarray(expected))
    np.testing.assert_array_equal(np.rint(read_image(path, upright=False) * 255), stored)
    assert image_size(path) == expected.size
    assert image_size(path, upright=False) == (4, 6)
    np.testing.assert_array_equal(read_mask(path), np.asarray(expected).any(-1))
    np.testing.assert_array_equal(read_mask(path, upright=False), stored.any(-1))
    if suffix != ".webp" and mode == "RGB":
        colmaps = pycolmap.Bitmap.read(path, as_rgb=True).to_array()
        np.testing.assert_array_equal(colmaps, stored)


BROKEN_EXIF = {
    "no TIFF header": b"Exif\0\0\0\x08\0\x02\x01\x12\0\x03",
    "a text": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\x006\0\0\0" + bytes(4),
    "nine": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0" + bytes(4),
}


@pytest.mark.parametrize("what", BROKEN_EXIF)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_broken_exif_is_no_error_and_reported_once(
    tmp_path: Path, what: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = BROKEN_EXIF[what]
    # WebP is written without the prefix that JPEG has.
    exif = exif.removeprefix(b"Exif\0\0") if suffix == ".webp" else exif
    paths = [saved(tmp_path / f"{name}{suffix}", LEVELS, exif=exif) for name in "ab"]
    for path in paths:
        assert read_image(path).shape == (6, 4, 3)
        assert image_size(path) == (4, 6)
        assert focal_35mm(path) is None
    message = [
        f"{tmp_path}/a{suffix}: unreadable EXIF orientation: this image, and others like it in "
        "its folder, are used as stored"
    ]
    # Pillow leaves such data of a JPEG aside without a word.
    silent = (suffix, what) == (".jpg", "no TIFF header")
    assert capsys.readouterr().err.splitlines() == ([] if silent else message)


def test_orientation_beside_a_tag_that_cannot_be_written_is_applied(tmp_path: Path) -> None:
    """A rational that is text, 0x011A: Pillow's own turning fails on it."""
    exif = (
        b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
        b"\x1a\x01\x02\0\x02\0\0\0H\0\0\0\0\0\0\0"
    )
    path = saved(tmp_path / "a.png", LEVELS, exif=exif)
    with pytest.raises(TypeError):
        ImageOps.exif_transpose(Image.open(path))
    np.testing.assert_array_equal(np.rint(read_image(path) * 255), np.rot90(LEVELS, -1))


def test_focal_length_of_a_phone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    assert focal_35mm(saved(tmp_path / "a.jpg", LEVELS, exif=exif)) == 26
    assert focal_35mm(saved(tmp_path / "b.jpg", LEVELS)) is None


def test_alpha_lies_over_the_background(tmp_path: Path) -> None:
    values = np.full((2, 2, 4), 200, np.uint8)
    values[..., 3] = [[0, 255], [51, 255]]
    path = saved(tmp_path / "a.png", values)
    image = read_image(path, background=(1, 0.5, 0)) * 255
    np.testing.assert_allclose(image[0, 0], [255, 127.5, 0], atol=1e-3)
    np.testing.assert_allclose(image[1, 0], [244, 142, 40], atol=1e-3)
    np.testing.assert_allclose(image[:, 1], 200, atol=1e-3)
    assert has_alpha(path)
    assert not has_alpha(saved(tmp_path / "b.png", LEVELS))


def test_transparent_colours_of_palettes_and_keys(tmp_path: Path) -> None:
    flat = np.zeros((2, 2), np.uint8)
    flat[0] = 1
    palette = Image.fromarray(flat, "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "p.png", transparency=0)
    palette.save(tmp_path / "p.gif", transparency=0)
    rgb = np.where(flat[..., None] == 1, [200, 100, 50], [10, 20, 30]).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "key.png", transparency=(10, 20, 30))
    for path in sorted(tmp_path.iterdir()):
        image = np.rint(read_image(path, background=(1, 1, 1)) * 255)
        assert image[0].tolist() == [[200, 100, 50]] * 2, path.name
        assert image[1].tolist() == [[255, 255, 255]] * 2, path.name


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (np.array([[0, 32768, 65535]], np.uint16), ".png"),
        (np.array([[0, 32768, 65535]], np.uint16), ".tif"),
        (np.array([[0, 32768, 65535]], ">u2"), ".tif"),
        (np.array([[0, 32768, 65535]], np.int32), ".tif"),
        (np.array([[0, 32768, 65535]], np.uint32), ".tif"),
        (np.array([[0, 32768 / 65535, 1]], np.float32), ".tif"),
    ],
)
def test_deep_greys_keep_their_scale(tmp_path: Path, values: np.ndarray, suffix: str) -> None:
    image = read_image(saved(tmp_path / f"a{suffix}", values))
    np.testing.assert_allclose(image, [[[v] * 3 for v in (0, 32768 / 65535, 1)]], atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 255]], np.float32), "floats from 0 to 255"),
        (np.array([[-0.5, 0.5]], np.float32), "floats from -0.5 to 0.5"),
        (np.array([[np.nan, 0.5]], np.float32), "floats from nan to nan"),
        (np.array([[0, 70000]], np.int32), "integers from 0 to 70000"),
        (np.array([[-1, 7]], np.int32), "integers from -1 to 7"),
    ],
)
def test_values_beyond_the_range_are_refused(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    with pytest.raises(UserError, match=rf"a\.tif: {message}"):
        read_image(saved(tmp_path / "a.tif", values))


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (np.array([[0, 16384, 32767]], np.int16), {}, [0, 16384 / 32767, 1]),
        (
            np.array([[0, 4000, 65535]], np.uint16),
            {"photometric": "miniswhite"},
            [1, 1 - 4000 / 65535, 0],
        ),
        (np.array([[0, 0.25, 1]], np.float32), {"photometric": "miniswhite"}, [1, 0.75, 0]),
    ],
)
def test_greys_of_other_tiffs(
    tmp_path: Path, values: np.ndarray, options: dict, expected: list[float]
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[0, :, 0], expected, atol=1e-6)


def test_colours_of_16_bits_are_read_to_8(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65535, (6, 4, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    np.testing.assert_allclose(read_image(tmp_path / "a.tif"), values / 65535, atol=1 / 255)


def test_tiffs_that_are_not_read_are_refused(tmp_path: Path) -> None:
    """Of the second, Pillow gives noise."""
    values = np.random.default_rng(0).random((3, 6, 4))
    colours = {"photometric": "rgb"}
    floats = values.transpose(1, 2, 0).astype(np.float32)
    tifffile.imwrite(tmp_path / "floats.tif", floats, **colours)
    planes = (values * 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "planes.tif", planes, planarconfig="separate", **colours)
    with pytest.raises(UserError, match=r"floats\.tif: .*a TIFF that is damaged, or whose"):
        read_image(tmp_path / "floats.tif")
    with pytest.raises(UserError, match=r"planes\.tif: .*separate colour planes"):
        read_image(tmp_path / "planes.tif")


def test_first_image_of_several_is_read(tmp_path: Path) -> None:
    other = [Image.fromarray(255 - LEVELS)]
    for name in ("a.tif", "a.gif", "a.webp", "a.mpo", "a.png"):
        exact = {"lossless": True} if name.endswith("webp") else {}
        first = Image.fromarray(LEVELS)
        first.save(tmp_path / name, save_all=True, append_images=other, **exact)
        read = read_image(tmp_path / name) * 255
        lossy = name.endswith("mpo")
        np.testing.assert_allclose(read, LEVELS, atol=60 if lossy else 0.01, err_msg=name)
        assert np.abs(read - LEVELS).mean() < 20, name


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_print_and_video_colours_become_rgb(tmp_path: Path, mode: str) -> None:
    grey = np.full((8, 8, 3), 120, np.uint8)
    path = saved(tmp_path / "a.tif", grey, mode)
    np.testing.assert_allclose(read_image(path) * 255, 120, atol=2)


def test_more_pixels_than_pillow_allows_are_read(tmp_path: Path) -> None:
    """200 million, as phones take them, from the header; Pillow's own limit is 179 million."""
    path = tmp_path / "a.png"
    path.write_bytes(png_of_size(16400, 12300))
    assert image_size(path, upright=False) == (16400, 12300)


@pytest.mark.parametrize("read", [read_image, read_mask, image_size, has_alpha])
def test_more_pixels_than_memory_holds_are_refused(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_of_size(2_000_000, 1_000_000))
    with pytest.raises(UserError, match="2000000x1000000 px, 2000000 million pixels") as caught:
        read(path)
    assert "expected at most" in str(caught.value)
    assert "GiB of memory" in str(caught.value)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of nothing but a header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def test_formats_of_unread_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    with pytest.raises(UserError, match=r"a\.jpg: not a whole image \(heic inside\)"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.jpg: not a whole image \(empty\)"):
        read_image(path)


def test_no_file_starts_a_program(tmp_path: Path) -> None:
    """EPS is handed to Ghostscript by Pillow, whatever a file is called."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert Image.open(path).format == "EPS"
    with pytest.raises(UserError, match="not a whole image"):
        read_image(path)


def test_masks_of_every_mode_agree(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((9, 7)) > 0.5
    palette = Image.fromarray((~mask).astype(np.uint8), "P")
    palette.putpalette([255, 255, 255, 0, 0, 0])  # white is number 0
    palette.save(tmp_path / "palette.png")
    saved(tmp_path / "sixteen.png", mask.astype(np.uint16))
    saved(tmp_path / "float.tif", mask.astype(np.float32))
    white = np.full((9, 7, 4), 255, np.uint8)
    white[..., 3] = 255 * mask
    saved(tmp_path / "white_alpha.png", white)
    colours = np.repeat(255 * mask[..., None].astype(np.uint8), 3, axis=2)
    saved(tmp_path / "print.tif", colours, "CMYK")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_mask(path), mask, err_msg=path.name)


def test_jpeg_masks_have_no_halo(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), bool)
    mask[5:20, 9:27] = True
    path = saved(tmp_path / "a.jpg", 255 * mask.astype(np.uint8), quality=60)
    assert (np.asarray(Image.open(path))[~mask] > 0).any()
    np.testing.assert_array_equal(read_mask(path), mask)


def test_masks_are_oriented_like_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.png", LEVELS, exif=exif)
    np.testing.assert_array_equal(read_mask(path), np.rot90(LEVELS.any(-1), -1))
