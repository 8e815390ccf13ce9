"""Reading every common kind of image, rounding, resampling, and refusal of broken files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.run.errors import UserError
from stages.scenes.images import (
    image_size,
    read_image,
    read_mask,
    resize,
    resize_mask,
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


def test_orientation_of_a_phone_is_applied(tmp_path: Path) -> None:
    """Orientation 6: the stored rows are the columns of the upright picture."""
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
def test_resizing_keeps_every_place_of_the_picture(width: int, height: int) -> None:
    """A ramp over the picture, sampled at pixel centres, stays that ramp: no half-pixel shift."""
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
