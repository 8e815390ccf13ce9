"""One synthetic light field in every format that decoders write."""

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from stages.run.errors import UserError
from stages.scenes.images import read_image, write_png
from stages.scenes.static.light_field.lightfield import LightField, read_lightfield


def grid(rows: int = 5, columns: int = 5, size: tuple[int, int] = (6, 8)) -> np.ndarray:
    """Views [R, C, H, W, 3] whose red is the row, whose green the column, in steps of 8 levels."""
    values = np.random.default_rng(0).integers(0, 255, (rows, columns, *size, 3))
    values[..., 0] = 8 * np.arange(rows)[:, None, None, None]
    values[..., 1] = 8 * np.arange(columns)[:, None, None]
    return values.astype(np.uint8)


def write_views(folder: Path, values: np.ndarray, skip: tuple = (), first: int = 0) -> None:
    for row, column in np.ndindex(values.shape[:2]):
        if (row, column) not in skip:
            name = f"{row + first:02d}_{column + first:02d}.png"
            write_png(folder / name, values[row, column] / np.float32(255))


def as_mat(path: Path, values: np.ndarray) -> None:
    weight = np.full((*values.shape[:-1], 1), 255, np.uint8)
    savemat(path, {"LF": np.concatenate([values, weight], axis=-1)})


def as_hdf5(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["LF"] = values.T


def as_eslf(path: Path, values: np.ndarray) -> None:
    rows, columns, height, width = values.shape[:4]
    picture = values.transpose(2, 0, 3, 1, 4).reshape(height * rows, width * columns, 3)
    write_png(path, picture / np.float32(255))


FORMATS: dict[str, tuple[Callable, int]] = {
    "viewpoints_5px": (write_views, 5),
    "Dog__Decoded.mat": (as_mat, 5),
    "Dog__Decoded_73.mat": (as_hdf5, 5),
    "dog_eslf.png": (as_eslf, 14),
}


def read(folder: Path, inner: int = 0, **options: str) -> LightField:
    return read_lightfield(folder, inner, folder.parent / f"{folder.name}_decoded", **options)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_views_by_row_and_column(name: str, tmp_path: Path) -> None:
    write, side = FORMATS[name]
    values = grid(side, side)
    write(tmp_path / name, values)
    field = read(tmp_path)
    assert set(field.views) == set(np.ndindex(side, side))
    for cell in ((0, 0), (1, 3), (4, 2)):
        assert np.array_equal(np.rint(field.read(cell) * 255), values[cell])


def test_inner_drops_outer_rings_and_keeps_indices(tmp_path: Path) -> None:
    write_views(tmp_path / "viewpoints_13px", grid(13, 13, (4, 4)))
    field = read(tmp_path, inner=2)
    assert len(field.views) == 81
    assert min(field.views) == (2, 2)
    assert max(field.views) == (10, 10)
    assert field.centre == (6, 6)


def test_missing_rings_are_not_dropped_again(tmp_path: Path) -> None:
    write_views(tmp_path / "inner_02" / "images", grid(9, 9, (4, 4)), first=2)
    assert len(read(tmp_path, inner=2).views) == 81


def test_refuses_a_ragged_grid_and_names_its_holes(tmp_path: Path) -> None:
    write_views(tmp_path / "viewpoints_5px", grid(), skip=((1, 2), (4, 4)))
    with pytest.raises(UserError, match=r"2 views missing \(01_02, 04_04\)"):
        read(tmp_path)


def test_refuses_views_of_two_sizes(tmp_path: Path) -> None:
    write_views(tmp_path, grid())
    write_png(tmp_path / "00_00.png", np.zeros((3, 3, 3), np.float32))
    with pytest.raises(UserError, match="2 sizes"):
        read(tmp_path)


def test_refuses_rings_that_leave_nothing(tmp_path: Path) -> None:
    write_views(tmp_path, grid())
    with pytest.raises(UserError, match="1 of 25 views left without 2 outer rings"):
        read(tmp_path, inner=2)


def test_refuses_none_and_several(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 light fields"):
        read(tmp_path)
    write_views(tmp_path / "a", grid())
    as_mat(tmp_path / "b_Decoded.mat", grid())
    with pytest.raises(UserError, match="2 light fields"):
        read(tmp_path)


def test_refuses_other_files_of_such_names(tmp_path: Path) -> None:
    (tmp_path / "x_Decoded.mat").write_bytes(b"no MATLAB at all" * 20)
    with pytest.raises(UserError, match="not a MATLAB file"):
        read(tmp_path)
    savemat(tmp_path / "x_Decoded.mat", {"LF": np.zeros((3, 3))})
    with pytest.raises(UserError, match=r"LF of shape \(3, 3\)"):
        read(tmp_path)
    (tmp_path / "x_Decoded.mat").unlink()
    write_png(tmp_path / "x_eslf.png", np.zeros((15, 28, 3), np.float32))
    with pytest.raises(UserError, match="multiples of 14"):
        read(tmp_path)


def test_raw_light_field_without_a_decoder_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "IMG_0001.LFR").write_bytes(b"\x89LFP")
    with pytest.raises(UserError, match="pipx install plenopticam"):
        read(tmp_path)


DECODER = """
import argparse
import os
from pathlib import Path
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--lfr", type=Path, required=True)
parser.add_argument("--calib_tar", type=Path, required=True)
parser.add_argument("--out_dir", type=Path, required=True)
parser.add_argument("--inner", type=int, required=True)
args = parser.parse_args()
assert args.lfr.read_bytes() == b"\\x89LFP" and args.calib_tar.is_file()
assert args.lfr.is_absolute() and args.out_dir.is_absolute() and args.calib_tar.is_absolute()
images = args.out_dir / f"inner_{args.inner:02d}" / "images"
images.mkdir(parents=True)
(images.parent / "sparse").mkdir()
(images.parent / "sparse" / "cameras.txt").write_text("1 PINHOLE 4 4 1 1 2 2")
Path("log.txt").write_text("stray")
for row in range(args.inner, 5 - args.inner):
    for column in range(args.inner, 5 - args.inner):
        Image.new("RGB", (8, 6), (row, column, 0)).save(images / f"view_{row:02d}_{column:02d}.png")
"""


@pytest.fixture
def raw_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a raw light field, an archive and a user's decoder, and the process in it."""
    folder = tmp_path / "raw; touch harm"
    folder.mkdir()
    (folder / "IMG it's 1.LFR").write_bytes(b"\x89LFP")
    (folder / "cal (2).tar").touch()
    (folder / "lf_to_colmap.py").write_text(DECODER)
    monkeypatch.chdir(folder)
    return folder


def test_users_decoder_gets_its_four_arguments(raw_field: Path) -> None:
    """Relative paths reach it as absolute ones, without a shell; its own poses are ignored."""
    before = sorted(raw_field.iterdir())
    field = read_lightfield(
        Path("IMG it's 1.LFR"), 1, raw_field.parent / "out", "lf_to_colmap.py", "cal (2).tar"
    )
    assert set(field.views) == {(r, c) for r in range(1, 4) for c in range(1, 4)}
    assert field.centre == (2, 2)
    assert sorted(raw_field.iterdir()) == before
    assert not list(raw_field.parent.rglob("harm"))


def test_decoder_that_is_a_program_is_run_as_it_is(raw_field: Path) -> None:
    program = raw_field / "decode"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "{raw_field}/lf_to_colmap.py" "$@"\n')
    arguments = (Path("IMG it's 1.LFR"), 1, raw_field.parent / "out", "decode", "cal (2).tar")
    with pytest.raises(UserError, match=r"LF_TO_COLMAP.*decode: cannot be run: Permission denied"):
        read_lightfield(*arguments)
    program.chmod(0o755)
    assert len(read_lightfield(*arguments).views) == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("print('reading')\nraise SystemExit('no such lens')", ["exited with 1", "no such lens"]),
        ("print('nothing to do')", ["exited with 0 and wrote no views", "nothing to do"]),
        ("import nowhere", ["exited with 1", "No module named 'nowhere'"]),
    ],
)
def test_failure_of_the_decoder_is_told(raw_field: Path, text: str, said: list[str]) -> None:
    script, out = raw_field / "lf_to_colmap.py", raw_field.parent / "out"
    script.write_text(text)
    with pytest.raises(UserError) as raised:
        read_lightfield(raw_field / "IMG it's 1.LFR", 1, out, str(script))
    message = str(raised.value)
    assert f"it ran as {sys.executable} '{script}' --lfr" in message
    assert f"--out_dir {out} --inner 1\nin {out}, and printed" in message
    for words in said:
        assert words in message
    with pytest.raises(UserError, match=r"static.lf_to_colmap \(LF_TO_COLMAP\): none.py"):
        read_lightfield(raw_field / "IMG it's 1.LFR", 1, out, "none.py")


def test_decoder_that_wrote_other_formats_and_colours_is_told(raw_field: Path) -> None:
    script, out = raw_field / "lf_to_colmap.py", raw_field.parent / "out"
    script.write_text(
        "from pathlib import Path\n"
        "for k in range(9): Path(f'{k:02d}_00.webp').touch()\n"
        "print('\\x1b[31mdone\\x1b[0m\\x07 \\x1b]0;title\\x07in red')\n"
    )
    with pytest.raises(UserError) as raised:
        read_lightfield(raw_field / "IMG it's 1.LFR", 1, out, str(script))
    message = str(raised.value)
    assert "wrote no views but 9 other files (00_00.webp, 01_00.webp, 02_00.webp, " in message
    assert ".png, .jpg, .jpeg, .tif, .tiff" in message
    assert message.endswith("printed\ndone in red")


def test_views_are_shrunk(tmp_path: Path) -> None:
    write_views(tmp_path, grid(3, 3, (6, 9)))
    field = read_lightfield(tmp_path, 0, tmp_path / "out", downscale=3)
    assert field.size((0, 0)) == (3, 2)
    assert field.read((1, 2)).shape == (2, 3, 3)
    assert np.rint(255 * field.read((1, 2)))[..., :2].reshape(-1, 2).tolist() == [[8, 16]] * 6


@pytest.mark.parametrize(
    "pattern", ["view_{:02d}_{:02d}.png", "r{}_c{}.jpg", "row{:02d}_col{}.png"]
)
def test_names_with_row_and_column(tmp_path: Path, pattern: str) -> None:
    for row, column in np.ndindex(3, 2):
        write_png(tmp_path / pattern.format(row, column), np.zeros((4, 4, 3), np.float32))
    write_png(tmp_path / "thumbnail.png", np.zeros((2, 2, 3), np.float32))
    assert set(read(tmp_path).views) == set(np.ndindex(3, 2))


def test_two_files_of_one_view_are_refused(tmp_path: Path) -> None:
    write_views(tmp_path, grid(2, 2))
    write_png(tmp_path / "view_01_01.png", np.zeros((6, 8, 3), np.float32))
    with pytest.raises(UserError, match=r"two views of row 1, column 1: 01_01.png, view_01_01.png"):
        read(tmp_path)


def test_plenopticam_works_on_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program writes beside its input, as this stand-in does."""
    programs, raw = tmp_path / "bin", tmp_path / "raw"
    programs.mkdir()
    raw.mkdir()
    (raw / "dog.LFR").write_bytes(b"\x89LFP")
    program = programs / "plenopticam"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom pathlib import Path\nfrom PIL import Image\n"
        "picture = Path(sys.argv[sys.argv.index('-f') + 1])\n"
        "out = picture.with_suffix('') / 'viewpoints_3px'\nout.mkdir(parents=True)\n"
        "[Image.new('RGB', (4, 4)).save(out / f'0{k // 3}_0{k % 3}.png') for k in range(9)]\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    field = read_lightfield(raw, 0, tmp_path / "scratch")
    assert len(field.views) == 9
    assert [path.name for path in raw.iterdir()] == ["dog.LFR"]


def test_metadata_beside_the_views_is_read(tmp_path: Path) -> None:
    write_views(tmp_path / "dog" / "viewpoints_5px", grid())
    (tmp_path / "dog" / "dog.json").write_text('{"frames": [{"a": 1}]}')
    assert read(tmp_path).metadata == {"frames": [{"a": 1}]}
    assert read_image(tmp_path / "dog" / "viewpoints_5px" / "00_00.png").shape == (6, 8, 3)


def test_hidden_copies_are_no_second_light_field(tmp_path: Path) -> None:
    folder = tmp_path / "lightfield"
    for name in ("viewpoints_5px", ".thumbnails", "__MACOSX"):
        write_views(folder / name, grid())
    assert len(read(folder).views) == 25
