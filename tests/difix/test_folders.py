"""Fixers on disk in diffusers' layout: our own and published ones."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from fixers import (
    perturbed,
    publish,
    publish_turbo,
    published_spec,
    same_weights,
    tiny_spec,
    warped_spec,
)
from safetensors.torch import load_file, save_file

from stages.difix.network.spec import Spec
from stages.difix.network.text import embed
from stages.difix.weights import folders
from stages.difix.weights.folders import read_folder, write_folder
from stages.difix.weights.part_files import lacking, names_in
from stages.difix.weights.tensors import read_tensors
from stages.run.errors import UserError
from stages.run.files import folder_hash, read_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(perturbed(tiny_spec()), tmp_path / "fixer")
    return tmp_path / "fixer"


@pytest.mark.parametrize(
    "spec", [tiny_spec(), warped_spec(), published_spec(prompt="sharpen", gamma=0.5)]
)
def test_round_trip(tmp_path: Path, spec: Spec) -> None:
    fixer = perturbed(spec)
    write_folder(fixer, tmp_path / "one")
    again = read_folder(tmp_path / "one")
    assert again.spec == fixer.spec
    assert same_weights(fixer, again)
    write_folder(again, tmp_path / "two")
    assert folder_hash(tmp_path / "one") == folder_hash(tmp_path / "two")


def test_number_of_references_is_written_where_it_is_not_one(tmp_path: Path) -> None:
    for count, written in ((1, False), (2, True)):
        write_folder(perturbed(tiny_spec(references=count)), tmp_path / str(count))
        assert ("references" in read_json(tmp_path / str(count) / "fixer.json")) == written
        assert read_folder(tmp_path / str(count)).spec.references == count
    for wrong in (0, "2", 1.5):
        edit_json(tmp_path / "1" / "fixer.json", references=wrong)
        with pytest.raises(UserError, match=r"(?s)fixer\.json.*references.*from 1 on"):
            read_folder(tmp_path / "1")


def test_number_of_warped_references_is_written_where_there_are_any(tmp_path: Path) -> None:
    for spec in (tiny_spec(), warped_spec(3)):
        write_folder(perturbed(spec), tmp_path / str(spec.warped))
    assert "warped" not in read_json(tmp_path / "0" / "fixer.json")
    assert read_json(tmp_path / "3" / "fixer.json")["warped"] == 3
    assert read_json(tmp_path / "3" / "vae" / "config.json")["in_channels"] == 15
    for wrong in (-1, "2", True):
        edit_json(tmp_path / "3" / "fixer.json", warped=wrong)
        with pytest.raises(UserError, match=r"(?s)fixer\.json.*warped.*from 0 on"):
            read_folder(tmp_path / "3")


def test_other_channels_than_the_warped_references_need_are_refused(tmp_path: Path) -> None:
    write_folder(perturbed(warped_spec(2)), tmp_path)
    edit_json(tmp_path / "fixer.json", warped=1)
    with pytest.raises(UserError, match=r"(?s)11 input channels.*warped: 1"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match=r"(?s)11 input channels and no fixer\.json"):
        folders.published_spec(tmp_path, True, "", "other")


def test_diffusers_reads_the_parts(folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
    fixer = read_folder(folder)
    assert torch.equal(unet.conv_in.weight, fixer.unet.conv_in.weight)
    assert vae.config.latent_channels == 16


def test_published_folder_is_read_without_its_code(tmp_path: Path) -> None:
    fixer = perturbed(published_spec())
    folder = publish(fixer, tmp_path / "difix_ref")
    spec = folders.published_spec(folder, True, "remove degradation", "difix_ref")
    again = read_folder(folder, spec, fixer.prompt)
    assert same_weights(fixer, again)
    assert again.spec.reference
    assert again.spec.origin == "difix_ref"


def test_turbo_folder_gets_skips_and_lora(tmp_path: Path) -> None:
    fixer = perturbed(published_spec())
    folder = publish_turbo(fixer, tmp_path / "sd-turbo")
    spec = folders.published_spec(folder, False, "", "sd-turbo")
    again = read_folder(folder, spec, fixer.prompt)
    assert torch.equal(again.unet.conv_in.weight, fixer.unet.conv_in.weight)
    assert spec.lora_rank == 4
    assert len(again.skips) == 4


def test_ignored_skips_have_no_gain(tmp_path: Path) -> None:
    folder = publish(perturbed(published_spec()), tmp_path / "difix")
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ignore_skip": True}))
    assert folders.published_spec(folder, False, "", "difix").gamma == 0.0


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


BROKEN = {
    "no unet": (lambda f: (f / "unet" / "config.json").unlink(), "no such file|no weights"),
    "no weights": (
        lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
        "no weights",
    ),
    "truncated": (
        lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 50),
        "not a complete safetensors file",
    ),
    "no prompt": (lambda f: (f / folders.PROMPT_FILE).unlink(), "no such file"),
    "other version": (lambda f: edit_json(f / "fixer.json", flavour=1), "unknown: flavour"),
}


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "no unet"])
def test_broken_folder_is_named(folder: Path, name: str) -> None:
    damage, message = BROKEN[name]
    damage(folder)
    with pytest.raises(UserError, match=message):
        read_folder(folder)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("unet", {"_class_name": "UNet3DConditionModel"}, "a UNet3DConditionModel"),
        ("unet", {"window_size": 7}, "unknown settings: window_size"),
        ("unet", {"in_channels": 9}, "9 channels and a VAE of 4"),
        ("unet", {"addition_embed_type": "text_time"}, "more than an image and a prompt"),
    ],
)
def test_folder_of_another_model_is_refused(
    tmp_path: Path, part: str, values: dict, message: str
) -> None:
    folder = publish(perturbed(published_spec()), tmp_path / "other")
    edit_json(folder / part / "config.json", **values)
    with pytest.raises(UserError, match=message):
        folders.published_spec(folder, True, "", "other")


def test_folder_without_parts_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a fixer: folders unet and vae, or a \.pkl"):
        folders.published_spec(tmp_path, True, "", "nothing")


def test_weights_are_float32_and_safe(folder: Path) -> None:
    files = list(folder.rglob("*.safetensors"))
    assert len(files) == 3
    assert not list(folder.rglob("*.bin"))
    assert all(one.dtype == torch.float32 for path in files for one in load_file(path).values())


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    name = sorted(state)[0]
    state[name].view(-1)[0] = torch.nan
    save_file(state, path)
    with pytest.raises(UserError, match=f"{name} has NaN or infinity"):
        read_folder(folder)


FLOATS = (torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused_in_all_precisions(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    fine, broken = tmp_path / "fine.safetensors", tmp_path / "broken.safetensors"
    weights = torch.linspace(-1, 1, 999).to(dtype)
    save_file({"weights": weights}, fine)
    assert torch.equal(read_tensors(fine)["weights"].float(), weights.float())
    weights[500] = value
    save_file({"weights": weights}, broken)
    with pytest.raises(UserError, match="weights has NaN or infinity"):
        read_tensors(broken)


def test_tensors_without_values_or_of_integers_are_finite(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    some = {"empty": torch.zeros(0, 3), "numbers": torch.arange(3), "flags": torch.ones(2) > 0}
    save_file(some, path)
    assert {name: value.tolist() for name, value in read_tensors(path).items()} == {
        name: value.tolist() for name, value in some.items()
    }


def convert(folder: Path, part: str, form: str) -> None:
    """Store a part's weights in another of the forms that checkpoints have."""
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    path = folder / part / f"{stem}.safetensors"
    state = load_file(path)
    path.unlink()
    half = form.startswith("fp16")
    state = {key: value.half() if half else value for key, value in state.items()}
    variant = ".fp16" if half else ""
    if form.endswith("bin"):
        stem = "pytorch_model" if part == "text_encoder" else stem
        torch.save(state, folder / part / f"{stem}{variant}.bin")
    elif form.endswith("shards"):
        names = sorted(state)
        halves = [names[::2], names[1::2]]
        files = [f"{stem}{variant}-0000{one}-of-00002.safetensors" for one in (1, 2)]
        for file, own in zip(files, halves, strict=True):
            save_file({key: state[key] for key in own}, folder / part / file, {"format": "pt"})
        weight_map = {key: file for file, own in zip(files, halves, strict=True) for key in own}
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (folder / part / f"{stem}.safetensors.index{variant}.json").write_text(json.dumps(index))
    else:
        save_file(state, folder / part / f"{stem}{variant}.safetensors", {"format": "pt"})


@pytest.mark.parametrize("form", ["shards", "bin", "fp16", "fp16 shards", "fp16 bin"])
def test_every_form_of_weights_is_read(tmp_path: Path, form: str) -> None:
    fixer = perturbed(published_spec())
    folder = publish(fixer, tmp_path / "difix_ref")
    prompt = embed(folder, "remove degradation")
    for part in ("unet", "vae", "text_encoder"):
        convert(folder, part, form)
    assert lacking(names_in(folder), {"text_encoder": ["transformers", "CLIPTextModel"]}) == []
    spec = folders.published_spec(folder, True, "remove degradation", "difix_ref")
    again = read_folder(folder, spec, embed(folder, "remove degradation"))
    tolerance = 1e-3 if form.startswith("fp16") else 0
    for key, value in fixer.state_dict().items():
        if key != "prompt":
            found = again.state_dict()[key]
            torch.testing.assert_close(found, value, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(again.prompt, prompt, rtol=2 * tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_shard_is_no_checkpoint(tmp_path: Path, part: str) -> None:
    folder = publish(perturbed(published_spec()), tmp_path / "difix_ref")
    convert(folder, part, "shards")
    next((folder / part).glob("*-00002-of-00002*")).unlink()
    index = json.loads((folder / "model_index.json").read_text())
    assert lacking(names_in(folder), index) == [f"weights of {part}"]
    with pytest.raises(UserError, match=r"no weights, or not all shards|no usable text_encoder"):
        read_folder(folder, published_spec(), embed(folder, "remove degradation"))


def test_text_encoder_without_a_tensor_or_with_nan_is_refused(tmp_path: Path) -> None:
    folder = publish(perturbed(published_spec()), tmp_path / "difix_ref")
    path = folder / "text_encoder" / "model.safetensors"
    state = load_file(path)
    name = next(key for key in sorted(state) if "final_layer_norm.weight" in key)
    save_file({key: state[key] for key in state if key != name}, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"no usable text_encoder .*final_layer_norm"):
        embed(folder, "remove degradation")
    save_file(state | {name: torch.full_like(state[name], torch.nan)}, path, {"format": "pt"})
    with pytest.raises(UserError, match="NaN or infinity"):
        embed(folder, "remove degradation")


def test_broken_or_harmful_bin_is_refused(tmp_path: Path) -> None:
    folder = publish(perturbed(published_spec()), tmp_path / "difix_ref")
    convert(folder, "unet", "bin")
    path = folder / "unet" / "diffusion_pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="can be read safely"):
        folders.read_part(folder, "unet")


@pytest.mark.parametrize("ours", [True, False])
def test_fixer_without_skips_is_refused(tmp_path: Path, ours: bool) -> None:
    """Only a VAE of SD-Turbo's own may lack them."""
    folder = publish(perturbed(published_spec()), tmp_path / "difix_ref")
    folder = tmp_path / "difix_ref_own" if ours else folder
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = {key: value for key, value in load_file(path).items() if "skip" not in key}
    save_file(state, path)
    spec = None if ours else folders.published_spec(folder, True, "", "difix_ref")
    prompt = None if ours else torch.zeros(1, 77, 16)
    with pytest.raises(UserError, match=r"no decoder\.skip_conv_1\.base_layer\.weight"):
        read_folder(folder, spec, prompt)
