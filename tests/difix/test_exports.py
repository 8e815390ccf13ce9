"""Fixers in the forms of NVIDIA's scripts, opened by a stand-in of what these do."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fixers import perturbed, publish, publish_turbo, published_spec, random_images, tiny_spec
from loopback_hub import served
from nvidia_dataset import NvidiaDataset
from nvidia_scripts import UNET_CODE, VAE_CODE, Difix
from small_samples import write_dataset

from stages.commands.export import main
from stages.difix.network.model import Fixer
from stages.difix.network.text import embed
from stages.difix.weights.exports import PKL_NAME, export_folder, export_pkl
from stages.difix.weights.folders import read_folder, write_folder
from stages.run import layout
from stages.run.errors import UserError

PROMPT = "remove degradation"


@pytest.fixture
def fixer(tmp_path: Path) -> Fixer:
    """A fixer of the published kind, without reference; `turbo` has the parts of others."""
    made = perturbed(published_spec(reference=False))
    publish_turbo(made, tmp_path / "turbo")
    made.prompt.copy_(embed(tmp_path / "turbo", PROMPT))
    return made


def test_pkl_gives_the_same_image_in_their_scripts(tmp_path: Path, fixer: Fixer) -> None:
    export_pkl(fixer, tmp_path / "out", None, 2e-5)
    theirs = Difix(tmp_path / "turbo", tmp_path / "out" / PKL_NAME)
    image = random_images(1, 3, 48, 64)
    expected = theirs.fix(image, PROMPT)
    with torch.no_grad():
        found = fixer(image[:, None])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    untrained = Difix(tmp_path / "turbo").fix(image, PROMPT)
    assert float((untrained - expected).abs().max()) > 1e-2, "skips and LoRA change nothing"


def test_their_trainer_resumes_from_the_pkl(tmp_path: Path, fixer: Fixer) -> None:
    """It takes the step from the name, and the optimizer must have as many tensors as its own."""
    export_pkl(fixer, tmp_path / "out", None, 3e-5)
    path = tmp_path / "out" / PKL_NAME
    assert int(path.name.replace("model_", "").replace(".pkl", "")) == 0
    theirs = Difix(tmp_path / "turbo", path)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optimizer = theirs.optimizer()
    optimizer.load_state_dict(torch.load(path, weights_only=True)["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 3e-5
    before = theirs.unet.conv_in.weight.detach().clone()
    theirs.unet.conv_in.weight.sum().backward()
    optimizer.step()
    moved = (theirs.unet.conv_in.weight - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 3e-5), rtol=0.05, atol=1e-6)


def test_folder_opens_as_a_pipeline_and_gives_the_same_image(tmp_path: Path, fixer: Fixer) -> None:
    """After the command that fetches the code, by name as in NVIDIA's repository."""
    published = publish(perturbed(published_spec(reference=False)), tmp_path / "difix")
    (published / "vae" / "autoencoder_kl.py").write_text(VAE_CODE)
    (published / "unet" / "unet_2d_condition.py").write_text(UNET_CODE)
    target = tmp_path / "out"
    command, _ = export_folder(fixer, target, tmp_path / "turbo")
    words = shlex.split(command)
    words[0] = str(Path(sys.executable).with_name("hf"))
    with served({"nvidia/difix": published}) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        subprocess.run(words, check=True, capture_output=True, env=env, timeout=120)
    assert hub.fetched == ["vae/autoencoder_kl.py"]
    script = OPENED.format(folder=target, image=tmp_path / "image.pt", result=tmp_path / "fixed.pt")
    image = random_images(1, 3, 48, 64)
    torch.save(image, tmp_path / "image.pt")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path), "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "newly initialized" not in done.stderr
    assert "not used" not in done.stderr
    with torch.no_grad():
        found = fixer(image[:, None])
    theirs = torch.load(tmp_path / "fixed.pt", weights_only=True)
    torch.testing.assert_close(found, theirs, rtol=0, atol=2e-5)


OPENED = """
import torch
from diffusers import DiffusionPipeline
from nvidia_dataset import NvidiaDataset
from nvidia_scripts import clean

class DifixPipeline(DiffusionPipeline):
    _optional_components = ["safety_checker", "feature_extractor", "image_encoder"]
    def __init__(
        self, vae, text_encoder, tokenizer, unet, scheduler,
        safety_checker=None, feature_extractor=None, image_encoder=None,
        requires_safety_checker=False,
    ):
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler
        )

pipe = DifixPipeline.from_pretrained("{folder}", trust_remote_code=True)
assert int(pipe.scheduler.config.num_train_timesteps) == 1000
tokens = pipe.tokenizer(
    "remove degradation", padding="max_length", max_length=77, return_tensors="pt"
)
with torch.no_grad():
    embedded = pipe.text_encoder(tokens.input_ids)[0]
image = torch.load("{image}", weights_only=True)
torch.save(clean(pipe.vae, pipe.unet, embedded, image), "{result}")
"""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (tiny_spec(), "a fixer of size other"),
        (published_spec(mixing="one_way"), "one_way attention"),
        (published_spec(gamma=0.5), r"scaled by 0\.5"),
    ],
)
def test_fixer_that_their_code_would_change_is_refused(
    tmp_path: Path, spec: object, message: str
) -> None:
    fixer = perturbed(spec)
    with pytest.raises(UserError, match=message):
        export_pkl(fixer, tmp_path / "out", None, 1e-5)
    if fixer.spec.gamma == 1:
        with pytest.raises(UserError, match=message):
            export_folder(fixer, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_trained_vae_has_no_place_in_a_pkl(tmp_path: Path, fixer: Fixer) -> None:
    other = perturbed(fixer.spec)
    other.load_state_dict(fixer.state_dict())
    with torch.no_grad():
        other.skips[0].weight.add_(1)
    export_pkl(other, tmp_path / "out", fixer, 1e-5)
    with torch.no_grad():
        other.vae.encoder.conv_in.weight.add_(1)
    with pytest.raises(UserError, match=r"VAE \(encoder\.conv_in\.weight\) was trained"):
        export_pkl(other, tmp_path / "other", fixer, 1e-5)


def test_command_exports_both_forms_and_prints_how_to_open_them(
    tmp_path: Path, fixer: Fixer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("tune:\n  lr: 2.0e-5\n")
    write_folder(fixer, layout.base(), tmp_path / "turbo")
    write_folder(fixer, layout.tuned())
    for form in ("pkl", "diffusers"):
        monkeypatch.setattr(sys, "argv", ["export", "tuned", "--form", form])
        main()
    output = capsys.readouterr().out
    assert '--model_path "exports/tuned/model_0.pkl"' in output
    assert "--resume" in output
    assert "hf download nvidia/difix vae/autoencoder_kl.py --local-dir" in output
    assert Path("exports/tuned/model_0.pkl").is_file()
    assert read_folder(Path("exports/tuned/diffusers")).spec == fixer.spec
    assert Path("exports/tuned/diffusers/text_encoder").is_dir()
    monkeypatch.setattr(sys, "argv", ["export", "nowhere", "--form", "pkl"])
    with pytest.raises(UserError, match=r"nowhere: no fixer of this repository"):
        main()


def test_fixers_in_folders_of_one_name_are_exported_apart(
    tmp_path: Path, fixer: Fixer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("tune:\n  lr: 2.0e-5\n")
    for folder in ("a/tuned", "b/tuned", "b/my fixer", layout.base()):
        write_folder(fixer, Path(folder), tmp_path / "turbo")
    targets = []
    for name in ("a/tuned", "b/tuned", "b/../a/tuned", "data/difix/base", "b/my fixer"):
        monkeypatch.setattr(sys, "argv", ["export", name, "--form", "pkl"])
        main()
        output = capsys.readouterr().out
        targets += [line.split(": ")[0] for line in output.splitlines() if "for NVIDIA" in line]
        assert f'--model_path "{targets[-1]}/{PKL_NAME}"' in output
        assert Path(targets[-1], PKL_NAME).is_file()
        assumed = f"note: {name}: its VAE is assumed to be that of base.components"
        assert (assumed in output) == (name != "data/difix/base")
    assert len(set(targets)) == 4
    assert targets[0] == targets[2]
    assert targets[0].startswith("exports/a-tuned-")
    assert targets[3] == "exports/base"
    assert targets[4].startswith("exports/b-my_fixer-")


@pytest.mark.parametrize("name", ["tuned", "data/difix/tuned", "data/../data/difix/tuned/"])
def test_trained_vae_is_refused_however_the_tuned_fixer_is_named(
    tmp_path: Path, fixer: Fixer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("tune:\n  lr: 2.0e-5\n")
    write_folder(fixer, layout.base(), tmp_path / "turbo")
    with torch.no_grad():
        fixer.vae.encoder.conv_in.weight.add_(1)
    write_folder(fixer, layout.tuned())
    monkeypatch.setattr(sys, "argv", ["export", name, "--form", "pkl"])
    with pytest.raises(UserError, match=r"VAE \(encoder\.conv_in\.weight\) was trained"):
        main()
    assert not layout.export("tuned").exists()


def test_dataset_opens_in_their_loader_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which opens the paths as they are, and stacks image and reference at one size."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    write_dataset(Path("samples"), size=(48, 64)).rename("dataset.json")
    layout.dataset().parent.mkdir(parents=True)
    Path("dataset.json").rename(layout.dataset())
    monkeypatch.setattr(sys, "argv", ["export", "dataset", "--form", "json"])
    main()
    written = project / "exports" / "dataset.json"
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        theirs = NvidiaDataset(written, split)
        ours = json.loads((project / layout.dataset()).read_text())[split]
        assert theirs.names == list(ours)
        for index, (name, entry) in enumerate(theirs.samples.items()):
            keys = ("image", "target_image", "ref_image")
            assert theirs[index]["conditioning_pixel_values"].shape == (2, 3, 576, 1024)
            assert theirs[index]["caption"] == ours[name]["prompt"]
            assert all(Path(entry[key]) == (project / ours[name][key]).resolve() for key in keys)


def test_form_of_a_fixer_is_not_that_of_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["dataset", "--form", "pkl"], ["tuned", "--form", "json"]):
        monkeypatch.setattr(sys, "argv", ["export", *words])
        with pytest.raises(SystemExit):
            main()
