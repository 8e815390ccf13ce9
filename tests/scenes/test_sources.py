"""Layouts of other programs: the same cameras and images as in Hi4D's, and every fault named."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from raw_layouts import SIZE, UNDISTORTED, WRITERS, Original, write_easyvolcap, write_transforms
from raw_sequences import write_raw_sequence

from stages.run.errors import UserError
from stages.run.files import folder_hash
from stages.scenes.config import PrepareConfig, SceneEntry
from stages.scenes.scene import Scene
from stages.scenes.sources.importer import import_scene
from stages.scenes.sources.mvhumannet import read_scale
from stages.scenes.sources.opening import layout_error, open_raw
from stages.scenes.sources.raw_sequence import RawSequence

CAMERAS, FRAMES = (4, 16, 28), (5, 10, 15)
CURVED = (-0.12, 0.05, 0.004, -0.003, 0.01)


def entry(source: str, **changes: object) -> SceneEntry:
    roles = {"source_cameras": ("28", "4"), "target_cameras": ("16",)}
    return SceneEntry(source=source, **(roles | changes))


def original(folder: Path, source: str = "hi4d") -> Original:
    bends = (0.0,) * 5 if source in UNDISTORTED else CURVED
    return Original.read(write_raw_sequence(folder, CAMERAS, FRAMES, SIZE, bends))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], tuple[Original, Path]]:
    """Writes a layout's miniature; what it was made of, and its folder."""

    def write(source: str) -> tuple[Original, Path]:
        made, root = original(tmp_path / "hi4d", source), tmp_path / "raw"
        WRITERS[source](made, root)
        return made, root

    return write


Written = Callable[[str], tuple[Original, Path]]


def centres(sequence: RawSequence) -> np.ndarray:
    poses = [sequence.cameras[str(name)].cam_from_world for name in CAMERAS]
    return np.stack([np.linalg.inv(pose)[:3, 3] for pose in poses])


@pytest.mark.parametrize("source", WRITERS)
def test_cameras_and_images_are_those_of_the_original(source: str, written: Written) -> None:
    made, root = written(source)
    sequence = open_raw(entry(source), root)
    np.testing.assert_allclose(centres(sequence), made.centres(), atol=1e-6)
    for c, name in enumerate(made.names):
        camera = sequence.cameras[name]
        np.testing.assert_allclose(camera.K, made.K[c], atol=1e-6)
        np.testing.assert_allclose(camera.cam_from_world[:3], made.poses[c], atol=1e-6)
        np.testing.assert_allclose(camera.distortion, made.bends[c], atol=1e-9)
        assert sorted(sequence.frames[name]) == list(FRAMES)
        for frame in FRAMES:
            path = made.root / "images" / name / f"{frame:06d}.png"
            assert sequence.frames[name][frame].read_bytes() == path.read_bytes()


@pytest.mark.parametrize("source", WRITERS)
def test_prepared_images_and_masks_are_those_of_the_original(
    source: str, written: Written, tmp_path: Path
) -> None:
    """Undistorted and resized: the same bytes from either layout."""
    made, root = written(source)
    prepared = {}
    for name, raw in (("hi4d", made.root), (source, root)):
        folder = tmp_path / f"scene_{name}"
        folder.mkdir()
        import_scene("scene", entry(name), PrepareConfig(height_px=64), raw, folder)
        views = Scene.read(folder).views()
        prepared[name] = [
            (folder_hash(view.image_path), folder_hash(view.mask_path), view.role) for view in views
        ]
    assert len(prepared[source]) == len(CAMERAS) * len(FRAMES)
    assert prepared[source] == prepared["hi4d"]


def test_prepared_scene_of_real_lenses_keeps_its_cameras(written: Written, tmp_path: Path) -> None:
    made, root = written("transforms")
    (tmp_path / "scene").mkdir()
    import_scene("scene", entry("transforms"), PrepareConfig(), root, tmp_path / "scene")
    for view in Scene.read(tmp_path / "scene").views():
        at = made.names.index(view.name)
        np.testing.assert_allclose(view.camera.centre, made.centres()[at], atol=1e-6)


# EasyVolcap


def test_files_of_training_and_test_cameras_are_read_together(tmp_path: Path) -> None:
    made, root = original(tmp_path / "hi4d"), tmp_path / "raw"
    write_easyvolcap(made, root, ("train_", "test_"))
    assert sorted(path.name for path in root.glob("*.yml")) == [
        "test_extri.yml",
        "test_intri.yml",
        "train_extri.yml",
        "train_intri.yml",
    ]
    sequence = open_raw(entry("easyvolcap"), root)
    np.testing.assert_allclose(centres(sequence), made.centres(), atol=1e-6)


def test_cameras_with_one_pose_are_named_with_their_files(tmp_path: Path) -> None:
    made, root = original(tmp_path / "hi4d"), tmp_path / "raw"
    made.poses[2] = made.poses[1]
    write_easyvolcap(made, root, ("train_", "test_"))
    error = str(layout_error(entry("easyvolcap"), root))
    assert "raw/train_extri.yml, test_extri.yml: cameras 28 and 16 have one pose" in error


def test_files_that_opencv_wrote_are_read(tmp_path: Path) -> None:
    """Numbers such as `1.` and `-5.0000e-01`, matrices in several lines, only rotation vectors."""
    made, root = original(tmp_path / "hi4d"), tmp_path / "raw"
    write_easyvolcap(made, root)
    files = {
        kind: cv2.FileStorage(str(root / f"{kind}.yml"), cv2.FILE_STORAGE_WRITE)
        for kind in ("intri", "extri")
    }
    for file in files.values():
        file.startWriteStruct("names", cv2.FileNode_SEQ)
        for name in made.names:
            file.write("", name)
        file.endWriteStruct()
    width, height = SIZE
    for c, name in enumerate(made.names):
        files["intri"].write(f"K_{name}", made.K[c])
        files["intri"].write(f"dist_{name}", made.bends[c][None])
        files["intri"].write(f"H_{name}", float(height))
        files["intri"].write(f"W_{name}", float(width))
        files["extri"].write(f"R_{name}", cv2.Rodrigues(made.poses[c][:, :3])[0])
        files["extri"].write(f"T_{name}", made.poses[c][:, 3:])
    for file in files.values():
        file.release()
    sequence = open_raw(entry("easyvolcap"), root)
    np.testing.assert_allclose(centres(sequence), made.centres(), atol=1e-9)
    assert sequence.cameras["16"].size == SIZE
    np.testing.assert_allclose(sequence.cameras["16"].distortion, CURVED)


@pytest.mark.parametrize("name", ["sync.json", "t_offsets.json", "timecode.json"])
def test_time_offsets_match_frames_of_one_instant(name: str, tmp_path: Path) -> None:
    """A camera that started 5 frames late shows with frame 5 what others show with frame 10."""
    root = tmp_path / "raw"
    write_easyvolcap(original(tmp_path / "hi4d"), root)
    (root / name).write_text(json.dumps({"4": 0.0, "16": -5 / 60, "28": 0.004}))
    with pytest.raises(UserError, match=re.escape(f"{name}: time offsets in seconds")):
        open_raw(entry("easyvolcap"), root)
    sequence = open_raw(entry("easyvolcap", fps=60), root)
    cameras = [str(camera) for camera in CAMERAS]
    assert sequence.common_frames(cameras) == [10, 15]
    shown = {camera: sequence.frames[camera][10].stem for camera in cameras}
    assert shown == {"4": "000010", "16": "000005", "28": "000010"}
    assert sequence.masks["16"][10][0].stem == "000005"
    alike = open_raw(entry("easyvolcap", fps=0), root)
    assert alike.common_frames(cameras) == list(FRAMES)


# nerfstudio


def still(root: Path, made: Original, **top: object) -> dict:
    """A still scene's transforms.json: one image per camera, all in one folder."""
    write_transforms(made, root.with_name("moving"))
    values = json.loads((root.with_name("moving") / "transforms.json").read_text())
    (root / "images").mkdir(parents=True)
    frames = []
    for frame in values["frames"]:
        camera, number = Path(frame["file_path"]).parts[1:]
        if number == "frame_00005.png":
            name = f"images/frame {camera}.png"
            (root / name).write_bytes((root.with_name("moving") / frame["file_path"]).read_bytes())
            frames.append({**frame, "file_path": f"./{name}"})
            del frames[-1]["mask_path"]
    return {"w": SIZE[0], "h": SIZE[1], **top, "frames": frames}


def test_each_image_of_a_still_scene_is_a_camera(tmp_path: Path) -> None:
    made, root = original(tmp_path / "hi4d"), tmp_path / "raw"
    (root).mkdir()
    (root / "transforms.json").write_text(json.dumps(still(root, made, applied_scale=1.0)))
    names = tuple(f"frame_{camera}" for camera in CAMERAS)
    chosen = entry("transforms", source_cameras=names[:2], target_cameras=names[2:])
    sequence = open_raw(chosen, root)
    assert sequence.common_frames(names) == [0]
    assert sequence.mask(names[0], 0, SIZE[::-1]) is None
    found = np.stack([np.linalg.inv(sequence.cameras[n].cam_from_world)[:3, 3] for n in names])
    np.testing.assert_allclose(found, made.centres(), atol=1e-6)


def test_files_of_blender_have_an_angle_and_names_without_suffix(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for part, places in (("train", (0, 1)), ("test", (2,))):
        (root / part).mkdir(parents=True)
        frames = []
        for place in places:
            Image.new("RGB", SIZE).save(root / part / f"r_{place}.png")
            matrix = np.eye(4)
            matrix[0, 3] = place
            frames.append({"file_path": f"./{part}/r_{place}", "transform_matrix": matrix.tolist()})
        values = {"camera_angle_x": 0.8, "frames": frames}
        (root / f"transforms_{part}.json").write_text(json.dumps(values))
    names = ("train_r_0", "train_r_1"), ("test_r_2",)
    chosen = entry("transforms", source_cameras=names[0], target_cameras=names[1])
    camera = open_raw(chosen, root).cameras["test_r_2"]
    focal = SIZE[0] / 2 / np.tan(0.4)
    middle = [SIZE[0] / 2, SIZE[1] / 2]
    np.testing.assert_allclose(camera.K, [[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    np.testing.assert_allclose(np.linalg.inv(camera.cam_from_world)[:3, 3], [2, 0, 0])
    assert camera.cam_from_world[2].tolist() == [0, 0, -1, 0], "it looks along -z"


def test_a_moving_camera_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    values = still(root, original(tmp_path / "hi4d"))
    for index, frame in enumerate(values["frames"]):
        frame["time"] = index / 2
    (root / "transforms.json").write_text(json.dumps(values))
    error = layout_error(entry("transforms"), root)
    assert "transforms.json: a moving camera: 3 instants" in str(error)


# MVHumanNet


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x03G" + struct.pack(">d", 1.25) + b".",
        b"F1.25\n.",
        # numpy.float64(1.25) as protocols 2 and 4 have it
        b"\x80\x02cnumpy.core.multiarray\nscalar\nq\x00cnumpy\ndtype\nq\x01X\x02\x00\x00\x00f8q\x02"
        b"K\x00K\x01\x87q\x03Rq\x04(K\x03X\x01\x00\x00\x00<q\x05NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
        b"\xffK\x00tq\x06bC\x08" + struct.pack("<d", 1.25) + b"q\x07\x86q\x08Rq\t.",
    ],
)
def test_scale_is_read_from_a_pickle(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "scale.pkl").write_bytes(data)
    assert read_scale(tmp_path / "scale.pkl") == 1.25


def test_nothing_that_a_pickle_names_is_run(tmp_path: Path) -> None:
    path = tmp_path / "scale.pkl"
    path.write_bytes(b"cos\nmkdir\n(V" + str(tmp_path / "sprung").encode() + b"\ntR.")
    with pytest.raises(UserError, match=r"scale\.pkl: 0 numbers"):
        read_scale(path)
    assert not (tmp_path / "sprung").exists()


# Faults


def edited(name: str, old: str, new: str, count: int = 1) -> Callable[[Path], None]:
    """Replaces text of a file; it must be there."""

    def spoil(root: Path) -> None:
        path = root / name
        text = path.read_bytes().decode()
        assert re.search(old, text), f"{old} not in {name}"
        path.write_bytes(re.sub(old, new, text, count=count).encode())

    return spoil


def cut(name: str, size: int = 300) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:size])


def removed(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def shrunk(name: str) -> Callable[[Path], None]:
    return lambda root: Image.new("RGB", (SIZE[0] // 2, SIZE[1])).save(root / name)


def moved(old: str, new: str) -> Callable[[Path], None]:
    return lambda root: (root / old).rename(root / new)


FAULTS = {
    "easyvolcap": [
        (removed("intri.yml"), "no intri.yml or train_intri.yml or test_intri.yml"),
        (removed("extri.yml"), "extri.yml: no such file"),
        (edited("extri.yml", "Rot_16", "Rot_99"), None),  # the vector is still there
        (edited("intri.yml", "K_16", "K_99"), "intri.yml  K_16: no such matrix"),
        (edited("extri.yml", "T_16", "T_99"), "extri.yml  T_16: no such matrix"),
        (
            edited(
                "intri.yml",
                r"K_16: !!opencv-matrix\r\n  rows: 3",
                "K_16: !!opencv-matrix\n  rows: 4",
            ),
            "intri.yml: cannot be parsed (a matrix of 4 x 3 with 9 numbers)",
        ),
        (cut("intri.yml"), "intri.yml: cannot be parsed"),
        (
            edited("intri.yml", "D_4: (?=!!)", "rdist_4: "),
            "intri.yml  rdist_4: the distortion of a fisheye",
        ),
        (lambda root: (root / "intri.yml").write_bytes(b"\xff\xfe"), "intri.yml: cannot be read"),
        (edited("intri.yml", '"28"', '"29"'), "intri.yml: no camera 28"),
        (edited("intri.yml", "names:", "nomes:"), "intri.yml  names: no list of cameras"),
        (
            edited("extri.yml", r"(R_16(?s:.)*?data: \[).*\]", r"\g<1>0.5, 1.0, 0.2]"),
            "extri.yml  camera 16: R_16 and Rot_16 differ by",
        ),
        (
            edited("intri.yml", r"(K_4(?s:.)*?data: \[)[\d.]+", r"\g<1>.Nan"),
            "intri.yml  K_4: NaN, infinity",
        ),
        (
            edited("intri.yml", "H_4: .*\r\nW_4: .*\r\n", "H_4: 64.\r\nW_4: 64.\r\n"),
            "images/4/000005.png: 153x128 px\nexpected 64x64 px, as the calibration says",
        ),
        (
            lambda root: (root / "sync.json").write_text('{"4": 0, "28": 0}'),
            "sync.json  camera 16: no offset",
        ),
        (lambda root: (root / "sync.json").write_text("{"), "sync.json: not JSON"),
        (moved("images/28", "images/028"), "images/28: no such folder"),
        (shrunk("images/16/000010.png"), "images/16/000010.png: 76x128 px"),
    ],
    "transforms": [
        (removed("transforms.json"), "no transforms.json or transforms_train.json"),
        (cut("transforms.json"), "transforms.json: not JSON"),
        (lambda root: (root / "transforms.json").write_text("[]"), "JSON, but a list"),
        (lambda root: (root / "transforms.json").write_text("{}"), "transforms.json: no frames"),
        (edited("transforms.json", "file_path", "file"), "frames.0: no file_path"),
        (edited("transforms.json", '"images/4/', '"../images/4/'), "frames.0: '../images/4"),
        (
            edited("transforms.json", r'"transform_matrix": \[\[', '"transform_matrix": [[1], ['),
            "frames.0: transform_matrix of shape (0,)",
        ),
        (edited("transforms.json", '"fl_x"', '"focal"'), "no fl_x"),
        (edited("transforms.json", r'"fl_x": [\d.]+', '"fl_x": -4'), "a focal length of -4 px"),
        (edited("transforms.json", r'"w": 153', '"w": 306'), "153x128 px\nexpected 306x128 px"),
        (edited("transforms.json", "OPENCV", "OPENCV_FISHEYE"), "camera_model OPENCV_FISHEYE"),
        (removed("images/16/frame_00010.png"), "images/16/frame_00010.png: no such file"),
        (removed("masks/16/frame_00010.png"), "masks/16/frame_00010.png: no such file"),
        (
            edited("transforms.json", '"mask_path": "masks/4/frame_00010.png", ', ""),
            "no mask_path, but other frames of this camera have one",
        ),
    ],
    "actorshq": [
        (removed("4x/calibration.csv"), "no calibration.csv"),
        (edited("4x/calibration.csv", ",px,", ",qx,"), "calibration.csv: no column px"),
        (
            edited("4x/calibration.csv", "\n16,153", "\n16,wide"),
            "calibration.csv  camera 16: could",
        ),
        (edited("4x/calibration.csv", "\n16,", "\n4,"), "two rows of one camera"),
        (edited("4x/calibration.csv", "\n28,", "\n29,"), "calibration.csv: no camera 28"),
        (lambda root: (root / "4x/calibration.csv").write_bytes(b"\xff\xff"), "cannot be read"),
        (
            lambda root: (root / "2x").mkdir() or (root / "2x/calibration.csv").touch(),
            "2 folders with calibration.csv: 2x, 4x",
        ),
        (moved("4x/rgbs/16", "4x/rgbs/17"), "rgbs/16: no such folder"),
        (shrunk("4x/rgbs/16/16_rgb000010.png"), "16_rgb000010.png: 76x128 px"),
    ],
    "mvhumannet": [
        (removed("camera_extrinsics.json"), "no camera_extrinsics.json"),
        (removed("camera_intrinsics.json"), "camera_intrinsics.json: no such file"),
        (removed("camera_scale.pkl"), "camera_scale.pkl: no such file"),
        (cut("camera_scale.pkl", 5), "camera_scale.pkl: no whole pickle"),
        (edited("camera_extrinsics.json", "1_28", "1_29"), "camera_extrinsics.json: no camera 28"),
        (edited("camera_extrinsics.json", "rotation", "turn"), "camera 4  rotation: shape ()"),
        (edited("camera_intrinsics.json", "intrinsics", "K"), "intrinsics: shape ()"),
        (moved("images_lr/16", "images_lr/17"), "images_lr/16: no such folder"),
        (shrunk("images_lr/16/0005_img.png"), "0005_img.png: 76x128 px"),
    ],
}


@pytest.mark.parametrize(
    ("source", "index"), [(name, i) for name, rows in FAULTS.items() for i in range(len(rows))]
)
def test_each_fault_is_one_message_that_names_its_file(
    source: str, index: int, written: Written
) -> None:
    _, root = written(source)
    chosen = entry(source)
    assert layout_error(chosen, root) is None
    spoil, says = FAULTS[source][index]
    spoil(root)
    error = layout_error(chosen, root)
    if says is None:
        assert error is None
        return
    assert says in str(error)
    assert str(root) in str(error)
    assert "expected" in str(error) or "fix" in str(error)


@pytest.mark.parametrize("source", WRITERS)
def test_missing_data_says_where_it_belongs(source: str, tmp_path: Path) -> None:
    error = layout_error(entry(source), tmp_path / "raw")
    assert f"{tmp_path / 'raw'}: no such folder" in str(error)
    assert "dvc import-url" in str(error)
