"""Checkpoints of the hub: from caches in its own layout, and from a stand-in of it on loopback."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixers import perturbed, publish, published_spec, write_text
from huggingface_hub import constants
from loopback_hub import COMMIT, TOKEN, Hub, served

from stages.difix.weights.exports import export_folder
from stages.difix.weights.hub import absence, is_hub_id, snapshot
from stages.difix.weights.part_files import lacking, names_in, wanted
from stages.run.errors import UserError
from stages.run.files import folder_hash

REF, PLAIN = "nvidia/difix_ref", "nvidia/difix"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as NVIDIA publishes it, with code and files that nobody reads."""
    folder = publish(perturbed(published_spec()), tmp_path_factory.mktemp("nvidia") / "difix_ref")
    (folder / "assets").mkdir()
    (folder / "assets" / "teaser.png").write_bytes(b"png")
    (folder / "sd.safetensors").write_bytes(b"all in one file")
    return folder


@pytest.fixture
def hub(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub as this process and its children reach it; the user's own cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "other").mkdir()
    models = {REF: published, PLAIN: published, "someone/other": tmp_path / "other"}
    with served(models, gated=frozenset({PLAIN})) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def place(published: Path, root: Path, but: str = "") -> Path:
    """The checkpoint in a cache as the hub's client leaves it, without one of its files."""
    folder = root / f"models--{REF.replace('/', '--')}"
    for name in set(wanted(names_in(published))) - {but}:
        target = folder / "snapshots" / COMMIT / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(published / name, target)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    return folder / "snapshots" / COMMIT


@pytest.mark.parametrize("name", [REF, f"{REF}@{COMMIT}"])
@pytest.mark.parametrize("shared", [False, True])
def test_cached_model_needs_no_network(
    published: Path, hub: Hub, cache: Path, name: str, shared: bool
) -> None:
    folder = place(published, Path(constants.HF_HUB_CACHE) if shared else cache)
    assert snapshot(name, cache, True, "base.source") == folder
    assert not hub.fetched
    assert absence(name, cache, False, "base.source") is None


@pytest.mark.parametrize("name", [REF, f"{REF}@v1"])
def test_download_has_what_is_read_and_no_code(hub: Hub, cache: Path, name: str) -> None:
    folder = snapshot(name, cache, True, "base.source")
    assert folder.name == COMMIT
    assert lacking(names_in(folder), {}) == []
    assert sorted(hub.fetched) == sorted(names_in(folder))
    assert not [
        one for one in hub.fetched if one.endswith((".py", ".png")) or one == "sd.safetensors"
    ]


@pytest.mark.parametrize(
    "name", ["model_index.json", "vae/config.json", "text_encoder/model.safetensors"]
)
def test_snapshot_that_lacks_a_file_is_completed(
    published: Path, hub: Hub, cache: Path, name: str
) -> None:
    folder = place(published, cache, but=name)
    assert absence(REF, cache, False, "base.source") is not None
    assert snapshot(REF, cache, True, "base.source") == folder
    assert name in hub.fetched
    assert absence(REF, cache, False, "base.source") is None


def test_download_that_broke_off_is_named_and_continued(hub: Hub, cache: Path) -> None:
    hub.broken = {"unet/diffusion_pytorch_model.safetensors"}
    with pytest.raises(UserError, match=r"lacks weights of unet, and the rest is not available"):
        snapshot(REF, cache, True, "base.source")
    before = set(hub.fetched)
    hub.broken, hub.fetched = set(), []
    snapshot(REF, cache, True, "base.source")
    assert hub.fetched == ["unet/diffusion_pytorch_model.safetensors"], before


@pytest.mark.parametrize("half", ["", ".fp16"])
def test_shards_and_half_precision_are_fetched_once(
    published: Path, hub: Hub, cache: Path, tmp_path: Path, half: str
) -> None:
    model = tmp_path / "sharded"
    shutil.copytree(published, model)
    stem = "diffusion_pytorch_model"
    whole = model / "unet" / f"{stem}.safetensors"
    for number in (1, 2):
        name = f"{stem}{half}-0000{number}-of-00002.safetensors"
        (model / "unet" / name).write_bytes(whole.read_bytes() + b" " * number)
    (model / "unet" / f"{stem}.safetensors.index.json").write_text("{}")
    whole.rename(model / "unet" / f"{stem}.fp16.bin")
    hub.models["a/sharded"] = model
    snapshot("a/sharded", cache, True, "base.source")
    of_unet = [name for name in hub.fetched if name.startswith("unet/diffusion")]
    assert not [name for name in of_unet if name.endswith(".bin")]
    assert len([name for name in of_unet if "-of-" in name]) == 2


@pytest.mark.parametrize("name", [REF, f"{REF}@v1"])
def test_command_of_the_message_fetches_the_checkpoint(
    hub: Hub, cache: Path, tmp_path: Path, name: str
) -> None:
    """The command of the message, and then its advice: copy the folder."""
    fault = absence(name, cache, False, "base.source")
    command = re.search(r"`(hf download [^`]+)`", str(fault))
    assert command is not None
    words = shlex.split(command[1])
    assert words[-1] == str(cache)
    words[0], words[-1] = str(Path(sys.executable).with_name("hf")), str(tmp_path / "elsewhere")
    subprocess.run(words, check=True, capture_output=True, timeout=120, env={**os.environ})
    assert not [one for one in hub.fetched if one.endswith((".py", ".png"))]
    assert absence(name, cache, False, "base.source") is not None
    shutil.copytree(tmp_path / "elsewhere", cache, symlinks=True)
    assert absence(name, cache, False, "base.source") is None
    assert snapshot(name, tmp_path / "elsewhere", False, "base.source").name == COMMIT


@pytest.mark.parametrize("name", [REF, PLAIN])
def test_command_that_an_export_prints_brings_the_code_beside_the_weights(
    hub: Hub, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else: the weights stay the exported fixer's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fixer, target = perturbed(published_spec(reference=name == REF)), Path("exports/tuned")
    command = export_folder(fixer, target, write_text(tmp_path / "text"))[0]
    weights = folder_hash(target / "vae")
    words = shlex.split(command)
    assert words[:3] == ["hf", "download", name]
    words[0] = str(Path(sys.executable).with_name("hf"))
    subprocess.run(words, check=True, capture_output=True, timeout=120, env={**os.environ})
    code = {"vae/autoencoder_kl.py"} | ({"unet/unet_2d_condition.py"} if name == REF else set())
    assert set(hub.fetched) == code
    for one in code:
        assert "code of a checkpoint" in (target / one).read_text()
    (target / "vae" / "autoencoder_kl.py").unlink()
    assert folder_hash(target / "vae") == weights


def test_gated_model_wants_the_token_that_the_message_names(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = absence(PLAIN, cache, True, "base.source")
    assert "accepted its licence" in str(fault)
    assert "set HF_TOKEN" in str(fault)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert absence(PLAIN, cache, True, "base.source") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nvidia/difix_reff", "(?s)the hub has no such model.*did you mean nvidia/difix_ref"),
        (f"{REF}@v9", "the hub has no such model"),
        ("someone/other", r"is no fixer: the hub's files lack unet/config\.json, weights of unet"),
    ],
)
def test_model_that_the_hub_does_not_have(hub: Hub, cache: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        snapshot(name, cache, True, "base.source")
    assert re.search(message, str(absence(name, cache, True, "base.source")))


@pytest.mark.parametrize(
    ("download", "reason"), [(True, "the hub: "), (False, "base.download is false")]
)
def test_absent_model_says_how_to_get_it(
    cache: Path, download: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        snapshot("nvidia/difix", cache, download, "base.source")
    message = str(caught.value)
    for part in ("base.source", "nvidia/difix is neither in", reason, "models--nvidia--difix"):
        assert part in message
    assert "HF_HOME" in message


@pytest.mark.parametrize("name", ["difix", "a/b/c", "../difix", "nvidia/", "a b/c", "/a/b"])
def test_invalid_hub_ids(name: str) -> None:
    assert not is_hub_id(name)
