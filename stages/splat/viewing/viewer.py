"""A live viewer in the browser: the only module that imports viser.

The browser draws the Gaussians itself; this process sends them and answers its controls.
"""

import io
import threading
from contextlib import redirect_stdout

import numpy as np
import viser

from stages.scenes.cameras import Array, Camera, quat_from_rotation, rotation_from_quat
from stages.splat.viewing.live_scene import LiveScene, Shot, nearest

_COLORS = {"source": (120, 120, 120), "target": (230, 120, 30)}
# Frusta are drawn at this share of the cameras' spread.
_FRUSTUM_SHARE = 0.12
_SPLAT, _CAMERAS = "/gaussians", "/cameras"


class Viewer:
    """One scene on a port of this machine."""

    def __init__(self, showing: LiveScene, host: str, port: int, method: str | None = None):
        self.showing = showing
        with redirect_stdout(io.StringIO()):  # it draws a box of its own
            self.server = viser.ViserServer(host=host, port=port, verbose=False)
        self.shots: list[Shot] = []
        self._told: dict[int, viser.GuiMarkdownHandle] = {}  # each client's own line
        self._lock = threading.Lock()  # controls call from threads of their own
        gui = self.server.gui
        methods, times = showing.methods, showing.timestamps
        self.method = gui.add_dropdown("method", methods, initial_value=method or methods[0])
        self.time = gui.add_dropdown("timestamp", times, initial_value=times[0])
        self.cameras = gui.add_checkbox("cameras", initial_value=True)
        for control in (self.method, self.time, self.cameras):
            control.on_update(lambda _: self.show())
        self.server.on_client_connect(self._welcome)
        self.server.on_client_disconnect(lambda client: self._told.pop(client.client_id, None))
        self.show()
        self.server.scene.set_up_direction(up_direction([shot.camera for shot in self.shots]))

    @property
    def port(self) -> int:
        """The port that was free; the next ones are tried when the one asked for is taken."""
        return self.server.get_port()

    def show(self) -> None:
        """Draw what the controls say."""
        with self._lock, self.server.atomic():
            method, time = self.method.value, self.time.value
            cloud = self.showing.cloud(method, time)
            self.server.scene.add_gaussian_splats(
                _SPLAT, cloud.centers, cloud.covariances, cloud.rgbs, cloud.opacities
            )
            self.shots = self.showing.shots(method, time)
            for shot in self.shots:
                self._frustum(shot)
        for client in self.server.get_clients().values():
            self._tell(client)

    def _frustum(self, shot: Shot) -> None:
        camera = shot.camera
        frustum = self.server.scene.add_camera_frustum(
            f"{_CAMERAS}/{camera.name}",
            fov=field_of_view(camera),
            aspect=camera.width / camera.height,
            scale=_FRUSTUM_SHARE * spread([one.camera for one in self.shots]),
            color=_COLORS[shot.role],
            image=np.rint(255 * shot.picture).astype(np.uint8),
            wxyz=quat_from_rotation(camera.world_from_cam[:3, :3]),
            position=camera.centre,
            visible=self.cameras.value,
        )
        frustum.on_click(lambda event: self._place(event.client, camera))

    def _welcome(self, client: viser.ClientHandle) -> None:
        """Begin where a held-out camera stands, since that is what was measured."""
        first = next((shot for shot in self.shots if shot.role == "target"), self.shots[0])
        self._told[client.client_id] = client.gui.add_markdown("")
        self._place(client, first.camera)
        client.camera.on_update(lambda _: self._tell(client))
        self._tell(client)

    def _place(self, client: viser.ClientHandle | None, camera: Camera) -> None:
        if client is None:
            return
        with client.atomic():
            client.camera.wxyz = quat_from_rotation(camera.world_from_cam[:3, :3])
            client.camera.position = camera.centre
            client.camera.fov = field_of_view(camera)

    def _tell(self, client: viser.ClientHandle) -> None:
        looking = rotation_from_quat(client.camera.wxyz)[:, 2]
        told = self._told.get(client.client_id)
        if told is not None:
            told.content = caption(nearest(self.shots, client.camera.position, looking))


def caption(shot: Shot | None) -> str:
    """What is known of the nearest held-out view."""
    if shot is None:
        return "no held-out view looks this way"
    measured = "not measured" if shot.psnr_db is None else f"{shot.psnr_db:.2f} dB PSNR"
    return f"nearest held-out view: camera {shot.camera.name}, {measured}"


def field_of_view(camera: Camera) -> float:
    """Vertical field of view, radians."""
    return float(2 * np.arctan(camera.height / 2 / camera.K[1, 1]))


def up_direction(cameras: list[Camera]) -> Array:
    """Mean upward direction [3] of the cameras: against their image columns."""
    up = -np.mean([camera.cam_from_world[1, :3] for camera in cameras], axis=0)
    return up / np.linalg.norm(up)


def spread(cameras: list[Camera]) -> float:
    """Mean distance of the cameras from their middle."""
    centres = np.stack([camera.centre for camera in cameras])
    return float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).mean())
