"""Which images are references of a view, by one policy in samples, `post` and `distill`.

`nearest`: source cameras by the distance of their centres. `overlap`: by how many of the view's
pixels the source sees, by the Gaussians' depth. `source:<camera>`: that one. `previous`: views are
fixed in the order of their distance from the source cameras, and each has the nearest of the views
fixed before it, or a source camera's image where none of these is nearer. No target camera's ground
truth is ever a reference.

A fixer takes references as they are, or warped into the view (`warping`), by the rule's `warped`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, centre_distance, nearest_cameras
from stages.scenes.config import FIXED_SOURCE, OVERLAP, PREVIOUS, ReferenceRule
from stages.scenes.images import Pixels
from stages.splat.gaussians import Gaussians
from stages.splat.views.visibility import SAME_SURFACE, depth_view, visible_counts

# A source camera by name, or a view that is fixed before by its index.
Reference = str | int
# Warps a view's references into it: the view's index, its references and their images [H, W, 3], to
# images [H, W, 4].
Warp = Callable[[int, Sequence[Reference], Sequence[Pixels]], list[Pixels]]


class Fix(Protocol):
    """A fixer ready for inference."""

    def __call__(
        self, images: Sequence[Pixels], references: Sequence[Sequence[Pixels]], /, grids: int = 1
    ) -> list[Pixels]:
        """Fixed views of renders [H, W, 3], each with its references, in equal sizes.

        References are images [h, w, 3], or [H, W, 4] for a fixer that takes them warped. Each is
        the mean over as many shifted `grids` of the network.
        """


def ranked_references(
    policy: str,
    cameras: Sequence[Camera],
    sources: Mapping[str, Camera],
    gaussians: Gaussians | None,
    backend: str,
    earlier: Sequence[Camera] = (),
) -> list[list[Reference]]:
    """References for each camera, the best first: names of source cameras, or indices of views.

    Of equal sources the nearest comes first, and after a named one the others by distance. A camera
    that is the named one, because it was left out of training, has the nearest sources. Only
    `previous` gives indices: of `cameras`, and after these of `earlier`.

    Args:
        policy: nearest, overlap, previous or source:<camera>.
        cameras: of the views, in the frame of the sources.
        sources: the source cameras by name.
        gaussians: that `overlap` takes depths from; other policies need none.
        backend: cuda or cpu.
        earlier: of views that are fixed already.

    Raises UserError when the named camera is no source camera.
    """
    if policy == PREVIOUS:
        return _progressive(cameras, sources, earlier)
    nearest = [nearest_cameras(camera, sources, 0) for camera in cameras]
    if policy == OVERLAP:
        assert gaussians is not None, "overlap needs Gaussians"
        nearest = _by_overlap(cameras, sources, nearest, gaussians, backend)
    if policy.startswith(FIXED_SOURCE):
        name = policy.removeprefix(FIXED_SOURCE)
        nearest = [
            _named_first(name, names, camera)
            for names, camera in zip(nearest, cameras, strict=True)
        ]
    return [list(names) for names in nearest]


def best_references(
    ranked: Sequence[Sequence[Reference]], rule: ReferenceRule
) -> list[list[Reference]]:
    """The first of each view's references, as many as the rule asks for.

    Raises UserError when a view has fewer and they are not warped.
    """
    if rule.warped:
        return [list(references[: rule.count]) for references in ranked]
    fewest = min(map(len, ranked), default=rule.count)
    if fewest < rule.count:
        raise UserError(
            "difix.references",
            str(rule.count),
            expected=f"at most {fewest}: there are no more source cameras",
            fix="lower it",
        )
    return [list(references[: rule.count]) for references in ranked]


def fixing_rounds(references: Sequence[Sequence[Reference]]) -> list[list[int]]:
    """Indices of the views, in rounds: a view's references are fixed in rounds before its own.

    >>> fixing_rounds([["a"], [2], ["b"], [1]])
    [[0, 2], [1], [3]]
    """
    count, fixed, rounds = len(references), set[int](), []
    while len(fixed) < count:
        ready = [
            index
            for index, chosen in enumerate(references)
            if index not in fixed
            and all(isinstance(one, str) or one >= count or one in fixed for one in chosen)
        ]
        assert ready, "views are references of each other"
        fixed.update(ready)
        rounds.append(ready)
    return rounds


def fix_in_rounds(
    renders: Sequence[Pixels],
    references: Sequence[Sequence[Reference]],
    image_of: Callable[[str], Pixels],
    fix: Fix,
    earlier: Sequence[Pixels] = (),
    warp: Warp | None = None,
) -> list[Pixels]:
    """Fix renders, with images of source cameras and views fixed before as references.

    Args:
        renders: of the views, [H, W, 3].
        references: of each, see `ranked_references`.
        image_of: the image of a source camera, by its name.
        fix: the fixer.
        earlier: views that are fixed already; their indices follow those of the renders.
        warp: for a fixer that takes references warped into the views.
    """
    fixed: dict[int, Pixels] = dict(enumerate(earlier, len(renders)))

    def beside(index: int) -> list[Pixels]:
        chosen = references[index]
        images = [image_of(one) if isinstance(one, str) else fixed[one] for one in chosen]
        return images if warp is None else warp(index, chosen, images)

    for indices in fixing_rounds(references):
        images = fix([renders[index] for index in indices], list(map(beside, indices)))
        fixed |= dict(zip(indices, images, strict=True))
    return [fixed[index] for index in range(len(renders))]


def _progressive(
    cameras: Sequence[Camera], sources: Mapping[str, Camera], earlier: Sequence[Camera]
) -> list[list[Reference]]:
    def from_sources(index: int) -> float:
        return min(centre_distance(cameras[index], source) for source in sources.values())

    known: dict[Reference, Camera] = dict(sources)
    known |= dict(enumerate(earlier, len(cameras)))
    ranked: dict[int, list[Reference]] = {}
    for index in sorted(range(len(cameras)), key=from_sources):
        camera = cameras[index]
        # Sources before views that are as far.
        ranked[index] = sorted(
            nearest_cameras(camera, known, 0),
            key=lambda one, camera=camera: (
                centre_distance(camera, known[one]),
                not isinstance(one, str),
            ),
        )
        known[index] = camera
    return [ranked[index] for index in range(len(cameras))]


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
        fix="name one of these, or use nearest, overlap or previous",
    )
