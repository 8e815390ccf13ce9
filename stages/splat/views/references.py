"""Which source cameras are references of a view, by one policy in samples, `post` and `distill`.

`nearest`: by the distance of the centres. `overlap`: by how many of the view's pixels the source
sees, by the Gaussians' depth. `source:<camera>`: that one. Only source cameras are ever chosen.
"""

from collections.abc import Mapping, Sequence

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, nearest_cameras
from stages.scenes.config import FIXED_SOURCE, OVERLAP
from stages.splat.gaussians import Gaussians
from stages.splat.views.visibility import SAME_SURFACE, depth_view, visible_counts


def ranked_references(
    policy: str,
    cameras: Sequence[Camera],
    sources: Mapping[str, Camera],
    gaussians: Gaussians | None,
    backend: str,
) -> list[list[str]]:
    """Names of the source cameras for each camera, the best reference first.

    Of equal sources the nearest comes first, and after a named one the others by distance. A camera
    that is the named one, because it was left out of training, has the nearest sources.

    Args:
        policy: nearest, overlap or source:<camera>.
        cameras: of the views, in the frame of the sources.
        sources: the source cameras by name.
        gaussians: that `overlap` takes depths from; other policies need none.
        backend: cuda or cpu.

    Raises UserError when the named camera is no source camera.
    """
    nearest = [nearest_cameras(camera, sources, 0) for camera in cameras]
    if policy == OVERLAP:
        assert gaussians is not None, "overlap needs Gaussians"
        return _by_overlap(cameras, sources, nearest, gaussians, backend)
    if policy.startswith(FIXED_SOURCE):
        name = policy.removeprefix(FIXED_SOURCE)
        return [
            _named_first(name, names, camera)
            for names, camera in zip(nearest, cameras, strict=True)
        ]
    return nearest


def _by_overlap(
    cameras: Sequence[Camera],
    sources: Mapping[str, Camera],
    nearest: Sequence[list[str]],
    gaussians: Gaussians,
    backend: str,
) -> list[list[str]]:
    views = [depth_view(gaussians, camera, backend) for camera in cameras]
    seen: list[dict[str, int]] = [{} for _ in views]
    for name, camera in sources.items():  # one source's depth in memory at a time
        source = [depth_view(gaussians, camera, backend)]
        for view, counts in zip(views, seen, strict=True):
            counts[name] = int(visible_counts(view, source, SAME_SURFACE).sum())
    return [
        sorted(names, key=lambda name, counts=counts: -counts[name])
        for names, counts in zip(nearest, seen, strict=True)
    ]


def _named_first(name: str, names: list[str], camera: Camera) -> list[str]:
    if name in names:
        return [name, *(other for other in names if other != name)]
    if name == camera.name:
        return names
    raise UserError(
        "difix.reference_from",
        f"{FIXED_SOURCE}{name}",
        expected=f"a source camera of the scene: {', '.join(sorted(names))}",
        fix="name one of these, or use nearest or overlap",
    )
