"""A live viewer in the browser: the only module that imports viser.

The browser renders the Gaussians itself; this process sends them and answers its controls.
"""

import io
import threading
from contextlib import redirect_stdout

import numpy as np
import viser

from stages.scenes.cameras import Array, Camera, quat_from_rotation, rotation_from_quat
from stages.splat.viewing.live_scene import Frustum, LiveScene, nearest

_COLORS = {"source": (120, 120, 120), "target": (230, 120, 30)}
# Depth of a frustum as a share of the cameras' spread.
_FRUSTUM_SHARE = 0.12
_SPLAT, _CAMERAS = "/gaussians", "/cameras"


class Viewer:
    """One scene on a port of this machine."""

    def __init__(self, scene: LiveScene, host: str, port: int, method: str | None = None):
        self.scene = scene
        with redirect_stdout(io.StringIO()):  # viser prints a banner
            self.server = viser.ViserServer(host=host, port=port, verbose=False)
        self.frusta: list[Frustum] = []
        self._captions: dict[int, viser.GuiMarkdownHandle] = {}  # by client
        self._lock = threading.Lock()  # controls call from several threads
        gui = self.server.gui
        methods, timestamps = scene.methods, scene.timestamps
        self.method = gui.add_dropdown("method", methods, initial_value=method or methods[0])
        self.timestamp = gui.add_dropdown("timestamp", timestamps, initial_value=timestamps[0])
        self.cameras = gui.add_checkbox("cameras", initial_value=True)
        for control in (self.method, self.timestamp, self.cameras):
            control.on_update(lambda _: self.show())
        self.server.on_client_connect(self._welcome)
        self.server.on_client_disconnect(lambda client: self._captions.pop(client.client_id, None))
        self.show()
        self.server.scene.set_up_direction(up_direction([one.camera for one in self.frusta]))

    @property
    def port(self) -> int:
        """The port that is served: the next free one where the requested one is taken."""
        return self.server.get_port()

    def show(self) -> None:
        """Send the Gaussians and cameras that the controls select."""
        with self._lock, self.server.atomic():
            method, timestamp = self.method.value, self.timestamp.value
            cloud = self.scene.cloud(method, timestamp)
            self.server.scene.add_gaussian_splats(
                _SPLAT, cloud.centers, cloud.covariances, cloud.rgbs, cloud.opacities
            )
            self.frusta = self.scene.frusta(method, timestamp)
            for frustum in self.frusta:
                self._add_frustum(frustum)
        for client in self.server.get_clients().values():
            self._update_caption(client)

    def _add_frustum(self, frustum: Frustum) -> None:
        camera = frustum.camera
        handle = self.server.scene.add_camera_frustum(
            f"{_CAMERAS}/{camera.name}",
            fov=field_of_view(camera),
            aspect=camera.width / camera.height,
            scale=_FRUSTUM_SHARE * spread([one.camera for one in self.frusta]),
            color=_COLORS[frustum.role],
            image=np.rint(255 * frustum.image).astype(np.uint8),
            wxyz=quat_from_rotation(camera.world_from_cam[:3, :3]),
            position=camera.centre,
            visible=self.cameras.value,
        )
        handle.on_click(lambda event: self._move_to(event.client, camera))

    def _welcome(self, client: viser.ClientHandle) -> None:
        """Place a new client at a held-out camera, where views are measured."""
        first = next((one for one in self.frusta if one.role == "target"), self.frusta[0])
        self._captions[client.client_id] = client.gui.add_markdown("")
        self._move_to(client, first.camera)
        client.camera.on_update(lambda _: self._update_caption(client))
        self._update_caption(client)

    def _move_to(self, client: viser.ClientHandle | None, camera: Camera) -> None:
        if client is None:
            return
        with client.atomic():
            client.camera.wxyz = quat_from_rotation(camera.world_from_cam[:3, :3])
            client.camera.position = camera.centre
            client.camera.fov = field_of_view(camera)

    def _update_caption(self, client: viser.ClientHandle) -> None:
        looking = rotation_from_quat(client.camera.wxyz)[:, 2]
        line = self._captions.get(client.client_id)
        if line is not None:
            line.content = caption(nearest(self.frusta, client.camera.position, looking))


def caption(frustum: Frustum | None) -> str:
    """Camera and PSNR of the nearest held-out view."""
    if frustum is None:
        return "no held-out view looks this way"
    psnr = "not measured" if frustum.psnr_db is None else f"{frustum.psnr_db:.2f} dB PSNR"
    return f"nearest held-out view: camera {frustum.camera.name}, {psnr}"


def field_of_view(camera: Camera) -> float:
    """Vertical field of view, radians."""
    return float(2 * np.arctan(camera.height / 2 / camera.K[1, 1]))


def up_direction(cameras: list[Camera]) -> Array:
    """Mean upward direction [3] of the cameras, opposite to their y axes."""
    up = -np.mean([camera.cam_from_world[1, :3] for camera in cameras], axis=0)
    return up / np.linalg.norm(up)


def spread(cameras: list[Camera]) -> float:
    """Mean distance of the cameras from their centroid."""
    centres = np.stack([camera.centre for camera in cameras])
    return float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).mean())
