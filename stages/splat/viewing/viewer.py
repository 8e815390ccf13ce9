"""Live viewers in the browser: the only module that imports viser.

The browser renders the Gaussians itself; this process sends them and answers its controls.
"""

import io
import threading
from contextlib import redirect_stdout

import numpy as np
import viser

from stages.run.errors import UserError
from stages.run.trainings import Training, Trainings
from stages.scenes.cameras import Array, Camera, quat_from_rotation, rotation_from_quat
from stages.splat.viewing.live_scene import Cloud, Frustum, LiveScene, nearest
from stages.splat.viewing.watched_training import WatchedTraining

_COLORS = {"source": (120, 120, 120), "target": (230, 120, 30)}
# Depth of a frustum as a share of the cameras' spread.
_FRUSTUM_SHARE = 0.12
_SPLAT, _CAMERAS = "/gaussians", "/cameras"
NEWEST = "the newest"
_NO_CURVE = (np.zeros(2), np.zeros(2))


class Viewer:
    """One scene on a port of this machine."""

    def __init__(self, scene: LiveScene, host: str, port: int, method: str | None = None):
        self.scene = scene
        self.server = _served(host, port)
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
            _add_cloud(self.server, self.scene.cloud(method, timestamp))
            self.frusta = self.scene.frusta(method, timestamp)
            for frustum in self.frusta:
                self._add_frustum(frustum)
        for client in self.server.get_clients().values():
            self._update_caption(client)

    def _add_frustum(self, frustum: Frustum) -> None:
        handle = _add_camera(
            self.server,
            frustum.camera,
            spread([one.camera for one in self.frusta]),
            role=frustum.role,
            image=np.rint(255 * frustum.image).astype(np.uint8),
        )
        handle.visible = self.cameras.value

    def _welcome(self, client: viser.ClientHandle) -> None:
        """Place a new client at a held-out camera, where views are measured."""
        first = next((one for one in self.frusta if one.role == "target"), self.frusta[0])
        self._captions[client.client_id] = client.gui.add_markdown("")
        _look_through(client, first.camera)
        client.camera.on_update(lambda _: self._update_caption(client))
        self._update_caption(client)

    def _update_caption(self, client: viser.ClientHandle) -> None:
        looking = rotation_from_quat(client.camera.wxyz)[:, 2]
        line = self._captions.get(client.client_id)
        if line is not None:
            line.content = caption(nearest(self.frusta, client.camera.position, looking))


class TrainingViewer:
    """Trainings on a port of this machine, as their files appear; `follow` is called in a loop."""

    def __init__(self, trainings: Trainings, host: str, port: int):
        self.trainings = trainings
        self.server = _served(host, port)
        gui = self.server.gui
        self.choice = gui.add_dropdown("training", (NEWEST,), initial_value=NEWEST)
        self.words = gui.add_markdown("nothing is being trained yet")
        axes = ({"label": "step"}, {"label": "loss", "stroke": "#e6781e"})
        self.curve = gui.add_uplot(_NO_CURVE, axes, aspect=1.8, visible=False)
        self.cameras: list[Camera] = []
        self._shown: tuple[str, int, bool] | None = None  # label, when written, whether finished
        self._of = ""  # item whose cameras are shown
        self._fault, self._count = "", 0
        self.server.on_client_connect(self._welcome)

    @property
    def port(self) -> int:
        """The port that is served: the next free one where the requested one is taken."""
        return self.server.get_port()

    def follow(self) -> None:
        """Look for new states once, and show what the choice selects."""
        self.trainings.look()
        labels = (NEWEST, *sorted(self.trainings.known))
        if self.choice.options != labels:
            self.choice.options = labels
        training = self.trainings.known.get(self.choice.value) or self.trainings.newest()
        if training is None:
            return
        try:
            self._show(training)
            self._fault = ""
        except FileNotFoundError:
            return  # its run ended this moment
        except UserError as error:
            self._fault = str(error)
        parts = [f"**{training.label}**", training.words(), f"{self._count} Gaussians", self._fault]
        content = "\n\n".join(part for part in parts if part)
        if self.words.content != content:
            self.words.content = content

    def _show(self, training: Training) -> None:
        shown = training.label, training.written, training.is_finished
        if shown == self._shown or not (training.is_there or training.is_finished):
            return
        watched = WatchedTraining(training)
        cloud = watched.cloud()
        with self.server.atomic():
            _add_cloud(self.server, cloud)
            self._show_cameras(watched.cameras)
            curve = training.rows["curve"]
            self.curve.visible = len(curve) > 1
            if self.curve.visible:
                self.curve.data = tuple(
                    np.array([row.get(key) for row in curve], np.float64)
                    for key in ("step", "loss")
                )
        if self._of != training.item:  # another scene is in another frame
            self._of = training.item
            for client in self.server.get_clients().values():
                self._welcome(client)
        self._shown, self._count = shown, len(cloud.centers)

    def _show_cameras(self, cameras: list[Camera]) -> None:
        self.server.scene.remove_by_name(_CAMERAS)
        self.cameras = cameras
        self.server.scene.set_up_direction(up_direction(cameras))
        for camera in cameras:
            _add_camera(self.server, camera, spread(cameras))

    def _welcome(self, client: viser.ClientHandle) -> None:
        if self.cameras:
            _look_through(client, self.cameras[0])


def _served(host: str, port: int) -> viser.ViserServer:
    with redirect_stdout(io.StringIO()):  # viser prints a banner
        return viser.ViserServer(host=host, port=port, verbose=False)


def _add_cloud(server: viser.ViserServer, cloud: Cloud) -> None:
    server.scene.add_gaussian_splats(
        _SPLAT, cloud.centers, cloud.covariances, cloud.rgbs, cloud.opacities
    )


def _add_camera(
    server: viser.ViserServer,
    camera: Camera,
    spread: float,
    role: str = "source",
    image: np.ndarray | None = None,
) -> viser.CameraFrustumHandle:
    """A frustum that a click looks through."""
    handle = server.scene.add_camera_frustum(
        f"{_CAMERAS}/{camera.name}",
        fov=field_of_view(camera),
        aspect=camera.width / camera.height,
        scale=_FRUSTUM_SHARE * spread,
        color=_COLORS[role],
        image=image,
        wxyz=quat_from_rotation(camera.world_from_cam[:3, :3]),
        position=camera.centre,
    )
    handle.on_click(lambda event: event.client and _look_through(event.client, camera))
    return handle


def _look_through(client: viser.ClientHandle, camera: Camera) -> None:
    with client.atomic():
        client.camera.wxyz = quat_from_rotation(camera.world_from_cam[:3, :3])
        client.camera.position = camera.centre
        client.camera.fov = field_of_view(camera)


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
