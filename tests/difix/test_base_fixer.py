"""What `base.source` may name, each to a fixer or to a clear refusal."""

import shutil
from pathlib import Path

import pytest
import torch
from fixers import (
    perturbed,
    publish,
    publish_turbo,
    published_spec,
    same_weights,
    tiny_spec,
    write_text,
)

from stages.difix.base_fixer import Untuned, untuned
from stages.difix.config import BaseConfig, BaseRuntime
from stages.difix.network.spec import SIZES
from stages.difix.network.text import embed
from stages.difix.weights.folders import write_folder
from stages.difix.weights.packed import pack
from stages.difix.weights.pkl import write_pkl
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(folder: Path, source: Path | str, **values: object) -> Untuned:
    aside = BaseRuntime(download=False, cache_dir="hub")
    config = BaseConfig(source=str(source), runtime=aside, **{"size": "tiny"} | values)
    return untuned(config, folder / "weights", Checkpoint("base", "fixer", ""), folder / "scratch")


def test_shipped_is_the_small_fixer(folder: Path) -> None:
    fixer, text = find(folder, "shipped")
    assert fixer.spec.origin == "procedural worlds"
    assert fixer.spec == SIZES["small"].changed(origin=fixer.spec.origin)
    assert text == folder / "scratch"


def test_random_depends_on_its_seed(folder: Path) -> None:
    one, same, other = (find(folder, "random", seed=seed).fixer for seed in (1, 1, 2))
    assert same_weights(one, same)
    assert not same_weights(one, other)


def test_own_folder_and_packed_file(folder: Path) -> None:
    fixer = perturbed(tiny_spec())
    write_folder(fixer, folder / "mine", write_text(folder / "text"))
    found = find(folder, folder / "mine")
    assert same_weights(found.fixer, fixer)
    pack(folder / "mine", folder / "mine.safetensors")
    assert find(folder, folder / "mine.safetensors").fixer.spec == fixer.spec


@pytest.mark.parametrize(("reference", "expected"), [("stored", True), ("no", False)])
def test_published_folder(folder: Path, reference: str, expected: bool) -> None:
    fixer = perturbed(published_spec(), prompt=None)
    publish(fixer, folder / "difix_ref")
    found = find(folder, folder / "difix_ref", reference=reference)
    assert found.fixer.spec.reference is expected
    assert found.fixer.spec.mixing == "mutual"
    assert torch.equal(found.fixer.unet.conv_in.weight, fixer.unet.conv_in.weight)
    assert torch.equal(found.fixer.prompt, embed(folder / "difix_ref", "remove degradation"))


def test_index_of_a_fixer_without_reference(folder: Path) -> None:
    publish(perturbed(published_spec(reference=False)), folder / "difix")
    assert not find(folder, folder / "difix").fixer.spec.reference


def test_turbo_needs_to_be_told_about_its_reference(folder: Path) -> None:
    publish_turbo(perturbed(published_spec()), folder / "sd-turbo")
    with pytest.raises(UserError, match=r"base\.reference: stored, but .* does not say"):
        find(folder, folder / "sd-turbo")
    assert not find(folder, folder / "sd-turbo", reference="no").fixer.spec.reference


def test_pkl_takes_its_other_parts_from_components(folder: Path) -> None:
    fixer = perturbed(published_spec())
    publish_turbo(fixer, folder / "sd-turbo")
    write_pkl(fixer, folder / "model.pkl")
    given = {"components": str(folder / "sd-turbo"), "reference": "yes"}
    found = find(folder, folder / "model.pkl", **given).fixer
    assert torch.equal(found.skips[0].weight, fixer.skips[0].weight)
    with pytest.raises(UserError, match="does not say whether"):
        find(folder, folder / "model.pkl", **given | {"reference": "stored"})
    with pytest.raises(UserError, match="no such file"):
        find(folder, folder / "other.pkl", **given)
    with pytest.raises(UserError, match=r"base\.components: 'nowhere': no such folder"):
        find(folder, folder / "model.pkl", **given | {"components": "nowhere"})


def test_another_prompt_needs_the_text_encoder(folder: Path) -> None:
    write_folder(perturbed(tiny_spec()), folder / "mine", write_text(folder / "text"))
    found = find(folder, folder / "mine", prompt="sharpen").fixer
    assert found.spec.prompt == "sharpen"
    assert torch.equal(found.prompt, embed(folder / "text", "sharpen"))
    shutil.rmtree(folder / "mine" / "text_encoder")
    with pytest.raises(UserError, match=r"(?s)base\.prompt: 'sharpen'.*has no text encoder"):
        find(folder, folder / "mine", prompt="sharpen")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shiped", "did you mean shipped"),
        ("/no/such/folder", "no fixer '/no/such/folder'"),
        ("nvidia/difix_ref", "is neither in hub nor available"),
    ],
)
def test_unknown_source_is_refused(folder: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find(folder, source)
