"""The live viewer without a browser: the page, and the messages to a client."""

import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_scene import SCENE, TARGETS, TIMES, folders, gaussians, write_scene
from viewer_client import Client

from stages import view
from stages.novel_views import main as draw
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import write_tsv
from stages.splat.viewing.live_scene import LiveScene, as_cloud, nearest
from stages.splat.viewing.viewer import Viewer, caption, field_of_view, spread, up_direction

PARAMS = "novel_views:\n  backend: cpu\n  align: false\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene whose plain novel views are rendered and measured."""
    root = tmp_path_factory.mktemp("viewer")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "argv", ["novel_views", "--scene", SCENE])
        Path("params.yaml").write_text(PARAMS)
        write_scene()
        draw()
        rows = [
            {"timestamp": TIMES[0], "camera": name, "psnr": 20.5 + k}
            for k, name in enumerate(TARGETS)
        ]
        path = layout.view_metrics(SCENE, "none")
        path.parent.mkdir(parents=True)
        write_tsv(path, rows, ["timestamp", "camera", "psnr"])
    return root


@pytest.fixture
def scene(folder: Path, monkeypatch: pytest.MonkeyPatch) -> LiveScene:
    monkeypatch.chdir(folder)
    return LiveScene(folders(("none", "base-post")))


@pytest.fixture
def viewer(scene: LiveScene) -> Iterator[Viewer]:
    """A server on a free port."""
    viewer = Viewer(scene, "127.0.0.1", 18080)
    yield viewer
    viewer.server.stop()


def test_only_methods_with_novel_views_are_offered(scene: LiveScene) -> None:
    assert scene.methods == ["none"]
    with pytest.raises(UserError, match="no novel views"):
        LiveScene(folders(("tuned-post",)))


def test_cloud_is_in_the_frame_of_the_cameras() -> None:
    truth = gaussians(TIMES[0])
    cloud = as_cloud(truth)
    in_frame = truth.world_from_norm.apply(truth.means.double().numpy())
    np.testing.assert_allclose(cloud.centers, in_frame, atol=1e-5)
    # Round ones of e^-2, twice as large in the estimated frame.
    expected = np.broadcast_to(np.eye(3) * (2 * np.exp(-2.0)) ** 2, (120, 3, 3))
    np.testing.assert_allclose(cloud.covariances, expected, atol=1e-6)
    np.testing.assert_allclose(cloud.opacities, 1 / (1 + np.exp(-2.0)), rtol=1e-6)


def test_non_finite_gaussians_are_left_out() -> None:
    broken = gaussians(TIMES[0])
    broken.means[3] = torch.nan
    broken.log_scales[5] = torch.inf
    assert len(as_cloud(broken).centers) == 118


def test_rotated_gaussians_keep_their_long_axis() -> None:
    long = gaussians(TIMES[0])
    long.log_scales[:] = torch.tensor([0.0, -4.0, -4.0])
    long.quats[:] = torch.tensor([2.0, 0.0, 0.0, 2.0])  # 90 degrees about z: x to y
    axes = np.linalg.eigh(as_cloud(long).covariances)[1][..., -1]
    expected = long.world_from_norm.rotation @ [0.0, 1.0, 0.0]
    np.testing.assert_allclose(np.abs(axes @ expected), 1, atol=1e-6)


def test_frusta_have_the_psnr_of_held_out_views(scene: LiveScene) -> None:
    frusta = {frustum.camera.name: frustum for frustum in scene.frusta("none", TIMES[0])}
    assert set(frusta) == {"4", "16", "40", "28", "64"}
    assert frusta["28"].psnr_db == 20.5
    assert frusta["4"].psnr_db is None
    assert {frustum.psnr_db for frustum in scene.frusta("none", TIMES[1])} == {None}


def test_nearest_view_is_a_held_out_one_that_looks_the_same_way(scene: LiveScene) -> None:
    frusta = scene.frusta("none", TIMES[0])
    at = scene.calibration.targets["64"]
    looking = at.cam_from_world[2, :3]
    nearest_view = nearest(frusta, at.centre + 0.01, looking)
    assert nearest_view is not None
    assert nearest_view.camera.name == "64"
    assert caption(nearest_view) == "nearest held-out view: camera 64, 21.50 dB PSNR"
    assert nearest(frusta, at.centre, -looking) is None
    assert caption(None) == "no held-out view looks this way"


def test_geometry_of_the_frusta(scene: LiveScene) -> None:
    cameras = list(scene.calibration.sources.values())
    up = scene.calibration.est_from_true.rotation @ [0.0, -1.0, 0.0]
    assert up_direction(cameras) @ up > 0.95
    assert field_of_view(cameras[0]) == pytest.approx(2 * np.arctan(0.5 / 1.2))
    assert 1 < spread(cameras) < 8


def test_page_is_served(viewer: Viewer) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{viewer.port}", timeout=10) as page:
        assert page.status == 200
        assert b"<html" in page.read().lower()


def test_client_gets_the_scene_and_the_nearest_views_psnr(viewer: Viewer) -> None:
    """A client reports its pose and reads messages, as a browser does."""
    target = viewer.scene.calibration.targets["64"]
    with Client(viewer.port) as client:
        client.look_from(target)
        splat = client.wait_for("GaussianSplatsMessage")
        assert splat["name"] == "/gaussians"
        names = {"/cameras/" + name for name in ("4", "16", "40", "28", "64")}
        client.wait(lambda: names <= {one.get("name") for one in client.messages})
        # The server moves it to the first held-out camera.
        moved = client.wait_for("SetCameraPositionMessage")
        expected = viewer.scene.calibration.targets["28"].centre
        np.testing.assert_allclose(moved["position"], expected, atol=1e-6)
        client.look_from(target)
        client.wait(lambda: "camera 64, 21.50 dB PSNR" in repr(client.messages))
        # At another timestamp nothing is measured yet.
        viewer.timestamp.value = TIMES[1]
        client.wait(lambda: "camera 64, not measured" in repr(client.messages))
        viewer.cameras.value = False
        client.wait(lambda: "'visible': False" in repr(client.messages))


def test_unknown_scene_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["view", "hi4d_pair15_figth"])
    with pytest.raises(UserError, match="did you mean hi4d_pair15_fight"):
        view.main()
