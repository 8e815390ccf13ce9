"""The .pkl of the published trainer: round trip, and its code is never run."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fixers import perturbed, publish, publish_turbo, published_spec, same_weights, tiny_spec

from stages.difix.network.model import Fixer
from stages.difix.weights.pkl import read_pkl, write_pkl
from stages.run.errors import UserError


@pytest.fixture
def fixer() -> Fixer:
    return perturbed(published_spec())


@pytest.fixture
def turbo(tmp_path: Path, fixer: Fixer) -> Path:
    """The parts that the format lacks: SD-Turbo's VAE."""
    return publish_turbo(fixer, tmp_path / "sd-turbo")


def read(path: Path, components: Path, fixer: Fixer) -> Fixer:
    return read_pkl(path, components, True, "remove degradation", fixer.prompt, "model_1.pkl")


def test_there_and_back(tmp_path: Path, fixer: Fixer, turbo: Path) -> None:
    path = tmp_path / "model_1.pkl"
    write_pkl(fixer, path)
    again = read(path, turbo, fixer)
    assert same_weights(fixer, again)
    assert again.spec.reference
    assert again.spec.lora_rank == 4


def test_form_is_the_published_one(tmp_path: Path, fixer: Fixer) -> None:
    write_pkl(fixer, tmp_path / "model_1.pkl")
    state = torch.load(tmp_path / "model_1.pkl", weights_only=True)
    wanted = {"vae_lora_target_modules", "rank_vae", "state_dict_unet", "state_dict_vae"}
    assert state.keys() == wanted
    assert "decoder.skip_conv_1" in state["vae_lora_target_modules"]
    assert all("lora" in key or "skip" in key for key in state["state_dict_vae"])


def test_optimiser_beside_the_weights_is_left_alone(
    tmp_path: Path, fixer: Fixer, turbo: Path
) -> None:
    path = tmp_path / "model_1.pkl"
    write_pkl(fixer, path)
    torch.save(torch.load(path, weights_only=True) | {"optimizer": {"state": {}}}, path)
    assert same_weights(fixer, read(path, turbo, fixer))


class Harm:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_code_is_refused_and_not_run(tmp_path: Path, fixer: Fixer, turbo: Path, form: str) -> None:
    path, trace = tmp_path / "model_1.pkl", tmp_path / "was_run"
    state = {"state_dict_unet": Harm(trace), "state_dict_vae": {}, "rank_vae": 4}
    torch.save(state, path) if form == "torch" else path.write_bytes(pickle.dumps(state))
    with pytest.raises(UserError, match="code in a checkpoint is never run"):
        read(path, turbo, fixer)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harm(trace)))
    assert trace.exists(), "the payload is harmless, so the test shows nothing"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict_unet": {}, "state_dict_vae": {}}, "expected state_dict_unet"),
        ([1, 2], "a list of no keys"),
        (b"not a checkpoint", "cannot|can be read safely"),
    ],
)
def test_other_content_is_refused(
    tmp_path: Path, fixer: Fixer, turbo: Path, content: object, message: str
) -> None:
    path = tmp_path / "model_1.pkl"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=message):
        read(path, turbo, fixer)


ODD = {
    "a number for a tensor": (
        lambda s: s["state_dict_unet"].update({"conv_in.weight": 1}),
        "a int",
    ),
    "names that are numbers": (lambda s: s["state_dict_vae"].update({7: torch.ones(1)}), "'7'"),
    "a sparse tensor": (
        lambda s: s["state_dict_unet"].update({"conv_in.bias": torch.ones(8).to_sparse()}),
        "dense tensors",
    ),
    "NaN": (lambda s: s["state_dict_unet"]["conv_in.bias"].fill_(torch.nan), "has NaN"),
    "one factor less": (lambda s: s["state_dict_vae"].popitem(), r"\(1 tensor\): vae: no"),
    "no VAE": (lambda s: s["state_dict_vae"].clear(), r"no decoder\.skip_conv_1|no decoder"),
    "no UNet": (lambda s: s["state_dict_unet"].clear(), "unet: no conv_in"),
    "a list of layers": (lambda s: s.update(state_dict_vae=[]), "a dict of"),
    "rank 0": (lambda s: s.update(rank_vae=0), "rank_vae: 0"),
    "rank -1": (lambda s: s.update(rank_vae=-1), "rank_vae: -1"),
    "a huge rank": (lambda s: s.update(rank_vae=10**12), "rank_vae: 1000000000000"),
    "rank true": (lambda s: s.update(rank_vae=True), "a dict of"),
    "another rank": (lambda s: s.update(rank_vae=8), "another architecture"),
    "a record of another form": (lambda s: s.update(splatfix_taught=[1]), "taught|record"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_content_is_refused(tmp_path: Path, fixer: Fixer, turbo: Path, name: str) -> None:
    path, (change, message) = tmp_path / "model_1.pkl", ODD[name]
    write_pkl(fixer, path)
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(UserError, match=message):
        read(path, turbo, fixer)


def test_gaps_are_not_filled_from_the_components(tmp_path: Path, fixer: Fixer) -> None:
    """Components may be a fixer, whose own skips and LoRA are other weights."""
    other = publish(perturbed(published_spec(), seed=5), tmp_path / "difix_ref")
    path = tmp_path / "model_1.pkl"
    write_pkl(fixer, path)
    state = torch.load(path, weights_only=True)
    del state["state_dict_vae"]["decoder.skip_conv_1.base_layer.weight"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"vae: no decoder\.skip_conv_1\.base_layer\.weight"):
        read(path, other, fixer)


def test_format_before_zip_archives(tmp_path: Path, fixer: Fixer, turbo: Path) -> None:
    path = tmp_path / "model_1.pkl"
    write_pkl(fixer, path)
    state = torch.load(path, weights_only=True)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert same_weights(fixer, read(path, turbo, fixer))


MEASURED = """
import resource, sys
from pathlib import Path
from stages.difix.weights.pkl import _load
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
state = _load(Path(sys.argv[1]))
print(peak() - before)
"""


def test_optimiser_takes_no_memory(tmp_path: Path) -> None:
    """Two thirds of a .pkl of the trainer are Adam's moments: 7 of 10 GB."""
    path, count = tmp_path / "model_1.pkl", 10_000_000
    moments = {index: torch.ones(count) for index in range(8)}
    state = {"state_dict_unet": {"one": torch.ones(count)}, "state_dict_vae": {}, "rank_vae": 4}
    torch.save(state | {"optimizer": moments}, path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], check=True, capture_output=True, text=True
    )
    # The weights as a copy and as pages of the file, and what checking them takes.
    assert int(done.stdout) < 3.5 * 4 * count


def test_missing_file_is_named(tmp_path: Path, fixer: Fixer, turbo: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "model_2.pkl", turbo, fixer)


def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, fixer: Fixer, turbo: Path
) -> None:
    path = tmp_path / "model_1.pkl"
    wider = published_spec()
    wider.unet["block_out_channels"] = [16, 32, 32, 32]
    write_pkl(perturbed(wider), path)
    with pytest.raises(UserError, match="another architecture"):
        read(path, turbo, fixer)


def test_tiny_fixer_has_no_such_form(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no LoRA"):
        write_pkl(perturbed(tiny_spec()), tmp_path / "model_1.pkl")
    assert not list(tmp_path.iterdir())
