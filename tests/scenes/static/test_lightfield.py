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


def test_users_decoder_is_not_called_through_a_shell(tmp_path: Path) -> None:
    lfr = tmp_path / "IMG; touch harm.LFR"
    lfr.write_bytes(b"\x89LFP")
    decoder = tmp_path.parent / f"{tmp_path.name}_decoder.py"
    decoder.write_text(
        "import sys\nfrom pathlib import Path\nfrom PIL import Image\n"
        "picture, folder, *words = sys.argv[1:]\n"
        "assert Path(picture).read_bytes() == b'\\x89LFP'\n"
        "assert words == ['--inner', '1', '--calib', 'c']\n"
        "for r in range(1, 4):\n    for c in range(1, 4):\n"
        "        Path(folder, 'images').mkdir(exist_ok=True)\n"
        "        Image.new('RGB', (4, 4)).save(f'{folder}/images/{r:02d}_{c:02d}.png')\n"
    )
    field = read(tmp_path, inner=1, decoder=str(decoder), calibration="c")
    assert set(field.views) == {(r, c) for r in range(1, 4) for c in range(1, 4)}
    assert not Path("harm.LFR").exists()
    decoder.write_text("raise SystemExit('no such lens')")
    with pytest.raises(UserError, match="no such lens"):
        read_lightfield(tmp_path, 1, tmp_path / "again", str(decoder))


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
