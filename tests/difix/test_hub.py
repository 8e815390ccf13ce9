"""Checkpoints of the hub: from a cache in the hub's own layout, without any network."""

from pathlib import Path

import huggingface_hub
import pytest

from stages.difix.weights import hub
from stages.difix.weights.hub import is_hub_id, snapshot
from stages.run.errors import UserError

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is unreachable: every request fails at once."""

    def refuse(**wanted: object) -> str:
        if wanted.get("local_files_only"):
            return huggingface_hub.snapshot_download(**wanted)
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", refuse)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one model at one commit."""
    root = tmp_path / "hub" / "models--nvidia--difix_ref"
    folder = root / "snapshots" / COMMIT
    for name in hub._FILES:
        path = folder / name.replace("*", "vocab")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["nvidia/difix_ref", f"nvidia/difix_ref@{COMMIT}"])
def test_cached_model_needs_no_network(cache: Path, name: str) -> None:
    folder = snapshot(name, cache, True, "base.source")
    assert folder.name == COMMIT
    assert (folder / "unet" / "config.json").is_file()


@pytest.mark.parametrize(
    ("download", "reason"), [(True, "the hub: ConnectionError"), (False, "base.download is false")]
)
def test_absent_model_says_how_to_get_it(tmp_path: Path, download: bool, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        snapshot("nvidia/difix", tmp_path / "hub", download, "base.source")
    message = str(caught.value)
    for part in ("base.source", "nvidia/difix is neither in", reason, "hf download nvidia/difix"):
        assert part in message
    assert "models--nvidia--difix" in message


def test_no_code_is_requested() -> None:
    assert not [name for name in hub._FILES if name.endswith((".py", ".bin", ".pkl", ".ckpt"))]
    assert not any(name.startswith("*") for name in hub._FILES)


@pytest.mark.parametrize("name", ["difix", "a/b/c", "../difix", "nvidia/", "a b/c", "/a/b"])
def test_invalid_hub_ids(name: str) -> None:
    assert not is_hub_id(name)
