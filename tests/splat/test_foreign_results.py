"""Results of other programs, written by independent routes, measure as the result itself does."""

import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gsplat import export_splats
from gsplat_recipe import recipe
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation
from small_capture import NAMES, cameras, write_capture

from stages.quality.evaluation import Meter
from stages.quality.metrics.backbones import BACKBONES
from stages.quality.metrics.lpips import Lpips
from stages.run.errors import UserError
from stages.run.files import folder_hash, read_json, read_tsv, write_json
from stages.scenes.cameras import rotation_from_vector
from stages.scenes.captures.config import (
    CaptureEvaluateConfig,
    CaptureTrainConfig,
    ForeignConfig,
)
from stages.scenes.dataset import Dataset
from stages.scenes.frames import Sim3, gsplat_normalisations
from stages.splat.captures import results
from stages.splat.captures.evaluation import evaluate_result
from stages.splat.captures.trained import open_result
from stages.splat.config import StrategyConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.gsplat_results import read_config
from stages.splat.ply import open_ply
from stages.splat.views.covisible import Covisibility, CovisibleRule

WORLD = Sim3(2.5, rotation_from_vector([0.4, 1.9, -0.3]), np.array([7.0, -3.0, 2.0]))
METER = Meter("cpu", note="none here")
EVALUATE = CaptureEvaluateConfig(align_steps=0)
EVAL_NAMES = ("a.png", "b.png", "c.png")
Splats = dict[str, torch.Tensor]
# As gsplat's trainer writes it, with tags of Python objects.
CFG = """\
antialiased: true
app_opt: false
data_dir: /somewhere/room
data_factor: 1
eval_steps:
- 7000
- 30000
lpips_net: alex
means_lr: 0.00012
normalize_world_space: true
pose_opt: true
strategy: !!python/object:gsplat.strategy.default.DefaultStrategy
  absgrad: false
  key_for_gradient: means2d
  prune_opa: 0.006
test_every: 4
tb_every: !!python/tuple
- 100
- 200
"""


@pytest.fixture(scope="module", autouse=True)
def work(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATFIX_WORK", str(tmp_path_factory.mktemp("work")))
        yield


@pytest.fixture(scope="module")
def random_lpips(tmp_path_factory: pytest.TempPathFactory) -> Lpips:
    """LPIPS by made-up features."""
    folder, random = tmp_path_factory.mktemp("alex"), torch.Generator().manual_seed(0)
    shapes = BACKBONES["alex"].shapes
    features = {name: 0.05 * torch.randn(shape, generator=random) for name, shape in shapes.items()}
    save_file(features, folder / "alex.safetensors")
    write_json(folder / "weights.json", {"alex": {"found": True, "sha256": "0" * 64}})
    return Lpips(folder, "alex")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("data") / "room", frame=WORLD)


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation set in the same world, with one training image and one held-out image."""
    both = cameras(EVAL_NAMES, 0.05) | {name: cameras()[name] for name in (NAMES[0], NAMES[5])}
    return write_capture(tmp_path_factory.mktemp("eval") / "hall", both, WORLD)


@pytest.fixture(scope="module")
def result(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of ours, antialiased, with view-dependent colour."""
    config = TrainConfig(
        max_steps=80,
        sh_degree=1,
        sh_degree_interval=10,
        max_gaussians=300,
        means_lr=0.004,
        scales_lr=0.02,
        sh0_lr=0.02,
        shN_lr=0.02,
        eval_steps=(),
        ply_steps=(40,),
        save_steps=(40,),
        pose_opt=False,
        antialiased=True,
        backend="cpu",
        strategy=StrategyConfig(refine_start_iter=1000),
    )
    folder = tmp_path_factory.mktemp("results") / "room"
    capture = CaptureTrainConfig(test_every=4, align_steps=0)
    results.train_result(Dataset.read(data), "", folder, capture, config, METER)
    return folder


@pytest.fixture(scope="module")
def own(result: Path, hall: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The metrics of the result itself."""
    return evaluate(result, hall, output=tmp_path_factory.mktemp("own") / "hall")


def evaluate(
    result: Path, hall: Path, config: CaptureEvaluateConfig = EVALUATE, **options: object
) -> dict:
    return evaluate_result(result, Dataset.read(hall), config, METER, **options)


def in_frame(gaussians: Gaussians, norm_from_world: np.ndarray) -> Splats:
    """gsplat's tensors in another frame, by SciPy's rotations and the vectors of degree 1."""
    matrix = norm_from_world @ gaussians.world_from_norm.matrix
    scale = np.cbrt(np.linalg.det(matrix[:3, :3]))
    rotation = matrix[:3, :3] / scale
    quats = Rotation.from_quat(gaussians.quats.numpy(), scalar_first=True)
    # Colour along d is -k0 y + k1 z - k2 x: the dot product of d with (-k2, -k0, k1).
    k = gaussians.shN.numpy()
    vectors = np.stack([-k[:, 2], -k[:, 0], k[:, 1]], axis=1)
    x, y, z = np.einsum("ij,njc->inc", rotation, vectors)
    columns = {
        "means": gaussians.means.numpy() @ matrix[:3, :3].T + matrix[:3, 3],
        "quats": (Rotation.from_matrix(rotation) * quats).as_quat(scalar_first=True),
        "scales": gaussians.log_scales.numpy() + np.log(scale),
        "opacities": gaussians.opacity_logits.numpy(),
        "sh0": gaussians.sh0.numpy(),
        "shN": np.stack([-y, z, -x], axis=1),
    }
    return {key: torch.tensor(value, dtype=torch.float32) for key, value in columns.items()}


@pytest.fixture(scope="module")
def normalised(result: Path, data: Path) -> Splats:
    """The result in gsplat's normalised frame of its dataset."""
    dataset = Dataset.read(data)
    matrix = recipe([view.camera for view in dataset.views], dataset.points)
    return in_frame(Gaussians.load(result / "train" / "gaussians.safetensors"), matrix)


def write_checkpoint(folder: Path, splats: Splats, step: int = 29999, ranks: int = 1) -> Path:
    """A result folder of gsplat's trainer; return the file of the first rank."""
    (folder / "ckpts").mkdir(parents=True, exist_ok=True)
    for rank in range(ranks):
        share = {key: value[rank::ranks].clone() for key, value in splats.items()}
        state = {"step": step, "splats": share, "pose_adjust": {"embeds.weight": torch.ones(6, 9)}}
        torch.save(state, folder / "ckpts" / f"ckpt_{step}_rank{rank}.pt")
    (folder / "cfg.yml").write_text(CFG)
    return folder / "ckpts" / f"ckpt_{step}_rank0.pt"


def same(scalars: dict, own: dict) -> bool:
    keys = ("psnr", "ssim", "mean_color_psnr", "views", "protocol", "frame", "shared_images")
    numbers = {key: pytest.approx(own[key], abs=5e-4) for key in keys[:3]}
    return {key: scalars[key] for key in keys} == {key: own[key] for key in keys} | numbers


@pytest.mark.parametrize("named", ["folder", "file"])
@pytest.mark.parametrize("ranks", [1, 3])
def test_gsplats_checkpoint_measures_as_the_result(
    named: str, ranks: int, normalised: Splats, own: dict, data: Path, hall: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    noise = {key: torch.randn_like(value) for key, value in normalised.items()}
    write_checkpoint(folder, noise, step=6999)
    newest = write_checkpoint(folder, normalised, ranks=ranks)
    before = folder_hash(folder)
    path = folder if named == "folder" else newest
    assert same(evaluate(path, hall, trained_on=data), own)
    assert (folder / "eval_on_hall" / "metrics.json").is_file(), "beside it"
    rows = read_tsv(folder / "eval_on_hall" / "views.tsv")
    assert {row["image"]: row["trained"] for row in rows} == {
        **dict.fromkeys(EVAL_NAMES, "0"),
        NAMES[0]: "0",
        NAMES[5]: "1",
    }
    shutil.rmtree(folder / "eval_on_hall")
    assert folder_hash(folder) == before


def test_gsplats_ply_measures_as_the_result(
    normalised: Splats, own: dict, data: Path, hall: Path, tmp_path: Path
) -> None:
    """By gsplat's own exporter; without cfg.yml the frame is found by the sparse points."""
    path = tmp_path / "point_cloud_29999.ply"
    export_splats(**normalised, format="ply", save_to=str(path))
    foreign = ForeignConfig(antialiased="yes", test_every=4)
    config = EVALUATE.model_copy(update={"foreign": foreign})
    assert same(evaluate(path, hall, config, trained_on=data), own)
    plain = config.model_copy(update={"foreign": ForeignConfig(test_every=4)})
    other = evaluate(path, hall, plain, trained_on=data, output=tmp_path / "plain")
    assert abs(other["psnr"] - own["psnr"]) > 2e-3, "antialiasing matters"


def write_original_ply(path: Path, gaussians: Splats) -> None:
    """As the original 3D Gaussian Splatting does: with normals, and one more field."""
    count = len(gaussians["means"])
    parts = {
        **{name: gaussians["means"][:, k] for k, name in enumerate("xyz")},
        **{name: torch.zeros(count) for name in ("nx", "ny", "nz")},
        **{f"f_dc_{k}": gaussians["sh0"][:, 0, k] for k in range(3)},
        **{f"f_rest_{k}": gaussians["shN"][:, k % 3, k // 3] for k in range(9)},
        "opacity": gaussians["opacities"],
        **{f"scale_{k}": gaussians["scales"][:, k] for k in range(3)},
        **{f"rot_{k}": gaussians["quats"][:, k] for k in range(4)},
        "label": torch.arange(count),
    }
    kinds = {name: "<i4" if name == "label" else "<f4" for name in parts}
    table = np.zeros(count, np.dtype(list(kinds.items())))
    for name, value in parts.items():
        table[name] = value.numpy()
    lines = [f"property {'int' if n == 'label' else 'float'} {n}" for n in parts]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}", *lines]
    path.write_bytes("\n".join([*header, "end_header\n"]).encode() + table.tobytes())


def test_original_ply_in_the_world_measures_as_the_result(
    result: Path,
    own: dict,
    data: Path,
    hall: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    trained = Gaussians.load(result / "train" / "gaussians.safetensors")
    write_original_ply(tmp_path / "scene.ply", in_frame(trained, np.eye(4)))
    foreign = ForeignConfig(antialiased="yes", test_every=4)
    config = EVALUATE.model_copy(update={"foreign": foreign})
    assert same(evaluate(tmp_path / "scene.ply", hall, config, trained_on=data), own)
    assert "scene.ply: fields left out: nx, ny, nz, label" in caplog.messages
    assert "in the world frame of room; trained on 6 of 8 images of room, every 4th held out" in (
        " ".join(caplog.messages)
    )


@pytest.mark.parametrize("kind", ["point_cloud.ply", "gaussians.safetensors"])
def test_file_of_a_result_of_ours_knows_its_training(
    kind: str, result: Path, own: dict, hall: Path, tmp_path: Path
) -> None:
    path = result / "train" / kind
    assert same(evaluate(path, hall, output=tmp_path / "out"), own)
    earlier = path.with_name(path.name.replace(".", "_40."))
    assert evaluate(earlier, hall, output=tmp_path / "early")["psnr"] < own["psnr"]


def test_ply_of_ours_elsewhere_is_in_the_world(
    result: Path, own: dict, data: Path, hall: Path, tmp_path: Path
) -> None:
    shutil.copy(result / "train" / "point_cloud.ply", tmp_path / "mine.ply")
    config = EVALUATE.model_copy(update={"foreign": ForeignConfig(test_every=4)})
    assert same(evaluate(tmp_path / "mine.ply", hall, config, trained_on=data), own)


@pytest.mark.parametrize("signs", [[1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]])
def test_frame_is_found_whatever_the_signs_of_its_axes(
    signs: list[int], normalised: Splats, result: Path, data: Path, tmp_path: Path
) -> None:
    """Versions without the flip, and eigenvectors of another sign."""
    dataset = Dataset.read(data)
    matrix = recipe([view.camera for view in dataset.views], dataset.points)
    trained = Gaussians.load(result / "train" / "gaussians.safetensors")
    splats = in_frame(trained, np.diag([*signs, 1.0]) @ matrix)
    path = write_checkpoint(tmp_path / "theirs", splats)
    opened = open_result(path, dataset, ForeignConfig()).gaussians
    placed = opened.world_from_norm.apply(opened.means.double().numpy())
    truth = trained.world_from_norm.apply(trained.means.double().numpy())
    np.testing.assert_allclose(placed, truth, atol=1e-3)


@pytest.mark.parametrize(("name", "nth"), [("gsplat", 0), ("gsplat_unflipped", 1)])
def test_frame_may_be_stated(
    name: str, nth: int, normalised: Splats, data: Path, tmp_path: Path
) -> None:
    dataset, path = Dataset.read(data), write_checkpoint(tmp_path / "theirs", normalised)
    views = [view.camera for view in dataset.views]
    opened = open_result(path, dataset, ForeignConfig(frame=name)).gaussians
    expected = gsplat_normalisations(views, dataset.points)[nth].matrix
    np.testing.assert_allclose(opened.world_from_norm.inverse().matrix, expected, atol=1e-9)
    world = open_result(path, dataset, ForeignConfig(frame="world")).gaussians
    placed = world.world_from_norm.apply(world.means.double().numpy())
    np.testing.assert_allclose(placed, normalised["means"].numpy(), atol=1e-4)


def test_wrong_dataset_is_refused(normalised: Splats, data: Path, tmp_path: Path) -> None:
    away = {**normalised, "means": normalised["means"] + 50}
    path = write_checkpoint(tmp_path / "away", away)
    with pytest.raises(UserError, match=r"spacings away from its sparse points[\s\S]*--trained-on"):
        open_result(path, Dataset.read(data), ForeignConfig())


def test_evaluations_of_two_files_in_one_folder_are_kept_apart(
    normalised: Splats, data: Path, hall: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "point_cloud_6999.ply", tmp_path / "point_cloud_29999.ply"
    export_splats(**normalised, format="ply", save_to=str(first))
    shutil.copy(first, second)
    evaluate(first, hall, trained_on=data)
    evaluate(first, hall, trained_on=data)
    before = folder_hash(tmp_path)
    with pytest.raises(UserError, match=r"is the evaluation of point_cloud_6999\.ply[\s\S]*output"):
        evaluate(second, hall, trained_on=data)
    assert folder_hash(tmp_path) == before
    evaluate(second, hall, trained_on=data, output=tmp_path / "second")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="no result of this command"):
        evaluate(second, hall, trained_on=data, output=tmp_path / "notes")


def test_training_images_are_named_and_may_be_left_out(
    result: Path, hall: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate(result, hall, output=tmp_path / "all")
    (message,) = [text for text in caplog.messages if "training images" in text]
    assert "1 of 5 images are training images of the result: RIGHT/01_RIGHT.png" in message
    config = EVALUATE.model_copy(update={"skip_trained": True})
    caplog.clear()
    assert evaluate(result, hall, config, output=tmp_path / "rest")["views"] == 4
    assert not [text for text in caplog.messages if "training images" in text]


def test_held_out_images_of_the_own_dataset_measure_as_in_training(
    normalised: Splats, result: Path, data: Path, tmp_path: Path
) -> None:
    """Without --trained-on the evaluated dataset is that of the training."""
    write_checkpoint(tmp_path / "theirs", normalised)
    config = EVALUATE.model_copy(update={"skip_trained": True})
    scalars = evaluate(tmp_path / "theirs", data, config)
    trained = read_json(result / "train" / "metrics.json")
    assert scalars["protocol"] == trained["protocol"]
    for key in ("psnr", "ssim", "mean_color_psnr"):
        assert scalars[key] == pytest.approx(trained[key], abs=2e-3)
    everything = config.model_copy(
        update={"foreign": ForeignConfig(test_every=0), "skip_trained": True}
    )
    with pytest.raises(UserError, match=r"all images of .* are training images"):
        evaluate(tmp_path / "theirs", data, everything)


def test_covisible_pixels_of_an_evaluation_set(result: Path, hall: Path, tmp_path: Path) -> None:
    masks = Covisibility(CovisibleRule(1, 0.05, 0.05), 32, 8)
    scalars = evaluate(result, hall, output=tmp_path / "out", covisibility=masks)
    assert 0.05 < scalars["covisible"] < 0.98
    assert scalars["mpsnr"] is not None
    assert scalars["mpsnr"] != pytest.approx(scalars["psnr"], abs=0.05)
    assert "covisible by depth within 5%" in scalars["protocol"]
    rows = read_tsv(tmp_path / "out" / "views.tsv")
    assert np.mean([float(row["covisible"]) for row in rows]) == pytest.approx(
        scalars["covisible"], abs=1e-4
    )
    assert len(list((tmp_path / "out" / "covisible").rglob("*.png"))) == 5
    plain = evaluate(result, hall, output=tmp_path / "plain")
    assert plain["psnr"] == scalars["psnr"]
    assert plain.keys() == scalars.keys() - {"covisible"}


STATS = {"psnr", "ssim", "ellipse_time", "num_GS"}


def test_evaluation_may_be_written_as_gsplats_trainer_does(
    normalised: Splats, result: Path, data: Path, hall: Path, tmp_path: Path
) -> None:
    meter = replace(METER, gsplat_stats=True)
    write_checkpoint(tmp_path / "theirs", normalised)
    scalars = evaluate_result(
        tmp_path / "theirs", Dataset.read(hall), EVALUATE, meter, trained_on=data
    )
    stats = read_json(tmp_path / "theirs" / "eval_on_hall" / "stats" / "val_step29999.json")
    assert stats.keys() == STATS, "and lpips, where it is measured"
    assert (stats["psnr"], stats["ssim"]) == (scalars["psnr"], scalars["ssim"])
    assert stats["num_GS"] == len(normalised["means"])
    assert 0 < stats["ellipse_time"] < 10
    masks = Covisibility(CovisibleRule(1, 0.05, 0.05), 32, 8)
    evaluate_result(
        result, Dataset.read(hall), EVALUATE, meter, output=tmp_path / "out", covisibility=masks
    )
    stats = read_json(tmp_path / "out" / "stats" / "val_step0079.json")
    assert stats.keys() == STATS | {"mpsnr", "mssim"}


def test_training_may_write_stats_of_each_evaluation(
    data: Path, tmp_path: Path, random_lpips: Lpips
) -> None:
    """All measures where the Gaussians of the step are kept."""
    config = TrainConfig(
        max_steps=40,
        sh_degree=0,
        eval_steps=(10, 20, 30, 40),
        save_steps=(20,),
        ply_steps=(30,),
        pose_opt=False,
        backend="cpu",
        strategy=StrategyConfig(refine_start_iter=1000),
    )
    capture, meter = (
        CaptureTrainConfig(test_every=4, align_steps=0),
        replace(METER, lpips=random_lpips, gsplat_stats=True),
    )
    for _ in range(2):  # the second run replaces the result
        scalars, fitted = results.train_result(
            Dataset.read(data), "", tmp_path / "room", capture, config, meter
        )
    stats = {path.name: read_json(path) for path in (tmp_path / "room" / "stats").iterdir()}
    assert set(stats) == {f"val_step{step:04d}.json" for step in (9, 19, 29, 39)}
    assert stats["val_step0009.json"].keys() == {"psnr", "ssim", "num_GS"}
    for step in (19, 29, 39):
        assert stats[f"val_step{step:04d}.json"].keys() == STATS | {"lpips"}
    assert stats["val_step0039.json"]["lpips"] == scalars["lpips"]
    for row in fitted.evaluations:
        if row["split"] == "test":
            one = stats[f"val_step{row['step'] - 1:04d}.json"]
            assert one["psnr"] == pytest.approx(row["psnr"], abs=2e-3)
            assert one["num_GS"] == row["gaussians"]


def test_config_is_read_without_running_its_tags(tmp_path: Path) -> None:
    (tmp_path / "cfg.yml").write_text(CFG + "camera_model: fisheye\nwith_ut: true\n")
    config = read_config(tmp_path)
    assert (config.antialiased, config.is_normalised) == (True, True)
    assert (config.data_factor, config.test_every) == (1, 4)
    assert config.notes == ("camera_model fisheye is rendered as pinhole", "with_ut is not applied")
    assert read_config(tmp_path / "none") is None
    mark = tmp_path / "ran"
    (tmp_path / "cfg.yml").write_text(f"a: !!python/object/apply:pathlib.Path.touch ['{mark}']\n")
    read_config(tmp_path)
    assert not mark.exists()
    for text in ("antialiased: [", "- a", "test_every: many", "data_factor: 0", "antialiased: 2"):
        (tmp_path / "cfg.yml").write_text(text)
        with pytest.raises(UserError, match=r"cfg\.yml"):
            read_config(tmp_path)


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def change(**values: object) -> Callable[[dict], object]:
    return lambda state: {**state, **values}


def without(key: str) -> Callable[[dict], object]:
    splats = lambda state: {k: v for k, v in state["splats"].items() if k != key}  # noqa: E731
    return lambda state: {**state, "splats": splats(state)}


def with_splat(key: str, changed: Callable[[torch.Tensor], object]) -> Callable[[dict], object]:
    return lambda state: {
        **state,
        "splats": {**state["splats"], key: changed(state["splats"][key])},
    }


def rows(state: dict, count: int) -> Splats:
    return {key: value[:count] for key, value in state["splats"].items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: Evil(), "Python objects in it besides tensors"),
        (lambda state: [1], "no splats"),
        (change(splats=3), "no splats"),
        (change(step="7"), "step '7'"),
        (without("shN"), "no usable 'shN'"),
        (without("sh0"), "no usable 'sh0'"),
        (change(splats={"features": torch.zeros(3, 32)}), "appearance embeddings"),
        (
            with_splat("means", lambda value: value.to_sparse()),
            "means is a tensor torch.sparse_coo",
        ),
        (with_splat("shN", lambda value: value.to("meta")), "shN is a tensor without data"),
        (
            with_splat("sh0", lambda value: value.to(torch.complex64)),
            "sh0 .*complex64, not a dense",
        ),
        (with_splat("quats", lambda value: value.int()), "quats .*int32, not a dense"),
        (with_splat("quats", lambda value: value.tolist()), "quats is no tensor but list"),
        (with_splat("means", lambda value: value * float("nan")), "none of .* Gaussians is finite"),
        (lambda state: {**state, "splats": rows(state, 0)}, "no Gaussians in it"),
        (with_splat("means", lambda value: value[:, :2]), "means of shape"),
        (with_splat("shN", lambda value: value[:1]), "shN of shape"),
        (with_splat("shN", lambda value: value[:, 0, 0]), "shN of shape"),
        (
            with_splat("shN", lambda value: torch.zeros(len(value), 24, 3)),
            "not of SH degree 0 to 3",
        ),
        (lambda state: {"splats": state["splats"]}, "no usable 'step'"),
    ],
)
def test_unusable_checkpoint_is_refused(
    spoil: Callable[[dict], object],
    message: str,
    normalised: Splats,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ckpt_6999_rank0.pt"
    torch.save(spoil({"step": 6999, "splats": normalised}), path)
    with pytest.raises(UserError, match=message) as error:
        open_result(path, Dataset.read(data), ForeignConfig())
    assert error.value.where == path
    assert "dvc repro" not in error.value.fix
    assert "copy the file again" not in error.value.fix
    assert not Path("ran").exists()


def test_dataset_is_compared_with_that_of_the_config(
    normalised: Splats, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = write_checkpoint(tmp_path, normalised)
    open_result(path, Dataset.read(data), ForeignConfig())
    assert "/somewhere" not in caplog.text
    assert "shrunk" not in caplog.text, "by 1"
    config = tmp_path / "cfg.yml"
    config.write_text(CFG.replace("/somewhere/room", "../gs7/vision-pro-dog/"))
    open_result(path, Dataset.read(data), ForeignConfig())
    (warning,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert "trained on ../gs7/vision-pro-dog/ by its data_dir" in warning
    assert f"but {data} is taken" in warning
    config.write_text(CFG + "match_string: NOWHERE\n")
    with pytest.raises(UserError, match=r"'NOWHERE' matches none of the 8 images") as error:
        open_result(path, Dataset.read(data), ForeignConfig())
    assert error.value.where == f"{config}  match_string"
    assert "EVAL_DIR" in error.value.got
    assert error.value.fix == "--trained-on /somewhere/room"


def test_missing_rank_is_named(normalised: Splats, data: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, normalised, ranks=3)
    (tmp_path / "ckpts" / "ckpt_29999_rank1.pt").unlink()
    with pytest.raises(UserError, match=r"ranks \[0, 2\] of a checkpoint, without \[1\]"):
        open_result(tmp_path, Dataset.read(data), ForeignConfig())


def test_gaussians_that_are_not_finite_are_left_out(
    normalised: Splats, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = {key: value.clone() for key, value in normalised.items()}
    broken["opacities"][2] = float("nan")
    opened = open_result(write_checkpoint(tmp_path, broken), Dataset.read(data), ForeignConfig())
    assert len(opened.gaussians) == len(broken["means"]) - 1
    assert f"1 of {len(broken['means'])} Gaussians are not finite" in " ".join(caplog.messages)


def counted(line: bytes) -> Callable[[bytes], bytes]:
    return lambda data: re.sub(rb"element vertex \d+", line, data, count=1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-10], "bytes for .* Gaussians"),
        (lambda data: b"solid" + data, "not a PLY"),
        (
            lambda data: data.replace(b"property float opacity", b"property float density"),
            "no field opacity",
        ),
        (lambda data: data.replace(b"f_rest_8\n", b"f_more_8\n"), "8 fields f_rest"),
        (lambda data: data.replace(b"binary_little_endian", b"ascii"), "not a binary PLY"),
        (lambda data: data.replace(b"float opacity", b"list uchar int opacity"), "is a list"),
        (lambda data: data.replace(b"element vertex", b"element chunk"), "first element is chunk"),
        (lambda data: data.replace(b"float rot_3", b"float rot_2"), "one twice"),
        (counted(b"element vertex -5"), "invalid count of Gaussians, -5"),
        (counted(b"element vertex 1.5"), r"invalid count of Gaussians, 1\.5"),
        (counted(b"element vertex"), "invalid count of Gaussians, none"),
        (counted(b"element 12000"), "element 12000 without a name"),
        (counted(b"element vertex 0"), "no Gaussians in it"),
    ],
)
def test_unusable_ply_is_refused(
    spoil: Callable[[bytes], bytes], message: str, result: Path, tmp_path: Path
) -> None:
    whole = (result / "train" / "point_cloud.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(spoil(whole))
    with pytest.raises(UserError, match=message):
        open_ply(tmp_path / "a.ply")


def test_what_is_no_result_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    for path, message in (
        (tmp_path / "none", "no such file or folder"),
        (tmp_path / "a.txt", "a file .txt"),
        (tmp_path, r"no train/capture.json, checkpoints/capture.json or ckpts"),
    ):
        with pytest.raises(UserError, match=message):
            open_result(path, Dataset.read(data), ForeignConfig())
