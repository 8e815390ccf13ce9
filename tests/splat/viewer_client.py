"""What a browser is to a viewer: it reports its pose and reads messages."""

from collections.abc import Callable

import msgspec
import numpy as np
import viser
import zstandard
from websockets.sync.client import connect

from stages.scenes.cameras import Camera, quat_from_rotation


class Client:
    """The websocket side of a browser."""

    def __init__(self, port: int, patience_s: float = 10):
        self.patience_s = patience_s
        protocol = f"viser-v{viser.__version__}"
        url = f"ws://127.0.0.1:{port}"
        self.socket = connect(url, subprotocols=[protocol], max_size=None)
        self.messages: list[dict] = []
        # Centres [N, 3] of the Gaussians of each message that had some, in order.
        self.clouds: list[np.ndarray] = []

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def look_from(self, camera: Camera) -> None:
        """Report a camera's pose."""
        message = {
            "type": "ViewerCameraMessage",
            "wxyz": quat_from_rotation(camera.world_from_cam[:3, :3]).tolist(),
            "position": camera.centre.tolist(),
            "look_at": [0.0, 0.0, 0.0],
            "up_direction": [0.0, 0.0, 1.0],
            "fov": 1.0,
            "near": 0.01,
            "far": 1000.0,
            "image_height": 480,
            "image_width": 640,
        }
        self.socket.send(msgspec.msgpack.encode(message))

    def wait(self, done: Callable[[], bool]) -> None:
        """Read messages until `done`."""
        while not done():
            packed = self.socket.recv(timeout=self.patience_s)
            end = 16 + int.from_bytes(packed[8:16], "little")
            inner = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed[16:end]))
            arrays = []
            for length in inner["binaryBufferLengths"]:
                begin = -(-end // 8) * 8
                end = begin + length
                arrays.append(packed[begin:end])
            self.messages += inner["messages"]
            for message in inner["messages"]:
                if message["type"] == "GaussianSplatsMessage":
                    place = message["props"]["buffer"]["__binary_index"]
                    words = np.frombuffer(arrays[place], np.uint32).reshape(-1, 8)
                    self.clouds.append(words[:, :3].view(np.float32))

    def wait_for(self, kind: str) -> dict:
        """The first message of a kind."""
        self.wait(lambda: any(one["type"] == kind for one in self.messages))
        return next(one for one in self.messages if one["type"] == kind)
