"""Stylised people: the appearance of a pair, and textured limbs around a posed skeleton."""

from dataclasses import dataclass

import numpy as np

from stages.scenes.cameras import Array
from stages.scenes.demo.people.head import CUTS, Look, head
from stages.scenes.demo.people.skeleton import ANKLE_HEIGHT, SIDES, Build, Skeleton, Trunk
from stages.scenes.demo.shapes.meshes import Mesh, ellipsoid, loft, tube
from stages.scenes.demo.shapes.paint import PATTERNS, Rng, cloth, denim, face, skin, strands

_COLORS = np.array(
    [
        [0.78, 0.13, 0.14],
        [0.13, 0.27, 0.62],
        [0.94, 0.74, 0.16],
        [0.10, 0.46, 0.30],
        [0.47, 0.20, 0.55],
        [0.91, 0.46, 0.12],
        [0.10, 0.55, 0.63],
        [0.88, 0.42, 0.58],
        [0.92, 0.90, 0.84],
        [0.16, 0.16, 0.19],
    ]
)
_TROUSERS = np.array(
    [
        [0.20, 0.29, 0.46],
        [0.36, 0.45, 0.58],
        [0.55, 0.46, 0.33],
        [0.24, 0.25, 0.27],
        [0.38, 0.40, 0.28],
        [0.48, 0.22, 0.20],
    ]
)
_SKIN = np.array([[0.94, 0.76, 0.65], [0.84, 0.64, 0.50], [0.68, 0.48, 0.35], [0.46, 0.31, 0.23]])
_HAIR = np.array(
    [
        [0.10, 0.07, 0.06],
        [0.33, 0.20, 0.11],
        [0.72, 0.54, 0.26],
        [0.50, 0.22, 0.10],
        [0.46, 0.45, 0.45],
    ]
)
_EYES = np.array([[0.20, 0.34, 0.52], [0.24, 0.15, 0.08], [0.22, 0.38, 0.24]])

# Radii along a limb, metres: (position, radius); the middle joint is at 1, the end joint at 2.
_ARM = ((0.0, 0.055), (0.3, 0.051), (0.7, 0.044), (1.0, 0.039), (1.3, 0.041), (2.0, 0.026))
_LEG = (
    (0.0, 0.080),
    (0.2, 0.083),
    (0.4, 0.077),
    (0.8, 0.060),
    (1.0, 0.055),
    (1.35, 0.056),
    (2.0, 0.037),
)
# Sections of the trunk: height above the pelvis's centre, half width, half depth, forward shift.
_SHIRT = (
    # Two sections at the hem keep its shading from the cloth above.
    (-0.075, 0.190, 0.142, -0.010),
    (-0.068, 0.189, 0.141, -0.010),
    (0.00, 0.180, 0.134, -0.006),
    (0.07, 0.165, 0.120, 0.000),
    (0.13, 0.152, 0.110, 0.006),
    (0.22, 0.156, 0.112, 0.008),
    (0.32, 0.170, 0.119, 0.006),
    (0.39, 0.174, 0.112, 0.000),
    (0.44, 0.166, 0.098, -0.006),
    (0.475, 0.135, 0.080, -0.010),
    (0.50, 0.085, 0.068, -0.008),
    (0.515, 0.062, 0.058, -0.004),
)
_HIPS = (
    (-0.125, 0.060, 0.055, 0.0),
    (-0.105, 0.125, 0.100, -0.006),
    (-0.06, 0.163, 0.118, -0.010),
    (0.0, 0.164, 0.118, -0.006),
    (0.06, 0.152, 0.108, 0.0),
)
_SHOE = (
    (-0.062, 0.022, 0.055),
    (-0.045, 0.033, 0.088),
    (0.0, 0.036, 0.100),
    (0.05, 0.038, 0.082),
    (0.10, 0.044, 0.060),
    (0.15, 0.043, 0.050),
    (0.178, 0.033, 0.042),
    (0.190, 0.018, 0.032),
)


@dataclass(frozen=True, eq=False)
class Person:
    """Appearance of one person of a pair."""

    number: int  # 0 or 1
    build: Build
    cut: str
    short_sleeves: bool
    shorts: bool
    gender: str
    textures: dict[str, Array]  # sRGB, by name; names end in the person's number

    @classmethod
    def of_pair(cls, pair: int, number: int, seed: int, prints: list[Array]) -> "Person":
        """The same people for every action of a pair. `prints` are images for T-shirts."""
        shared = np.random.default_rng([seed, pair])
        rng = np.random.default_rng([seed, pair, number])
        # One permutation for both people, so that they never look the same.
        colors = shared.permutation(_COLORS)[3 * number : 3 * number + 3]
        tone, hair = (shared.permutation(part)[number] for part in (_SKIN, _HAIR))
        cut, pattern = (shared.permutation(part)[number] for part in (CUTS, (*PATTERNS, "print")))
        trousers = shared.permutation(_TROUSERS)[number]
        woman = cut in ("bob", "long", "bun", "ponytail") or rng.random() < 0.3
        build = Build(
            height=rng.uniform(1.62, 1.74) if woman else rng.uniform(1.72, 1.85),
            girth=rng.uniform(0.92, 1.08),
            shoulders=0.94 if woman else 1.04,
            hips=1.04 if woman else 0.96,
        )
        beard = not woman and rng.random() < 0.55
        textures = {
            "shirt": _shirt(pattern, colors, prints, rng),
            "trousers": denim(trousers, (0.45, 0.85), rng),
            "skin": skin(tone, rng),
            "face": face(tone, hair, _EYES[rng.integers(3)], beard, rng.random() < 0.35, rng),
            "hair": strands(hair, rng),
            "shoes": cloth("plain", colors[[2, 0, 1]], (0.2, 0.2), rng),
            "soles": np.full((2, 2, 3), 0.85 if number else 0.25),
            "trim": cloth("plain", colors[[1, 2, 0]] * 0.9, (0.3, 0.2), rng),
        }
        named = {f"{name}{number}": image for name, image in textures.items()}
        gender = "female" if woman else "male"
        return cls(
            number,
            build,
            str(cut),
            bool(rng.random() < 0.6),
            bool(rng.random() < 0.3),
            gender,
            named,
        )

    def meshes(self, skeleton: Skeleton) -> list[Mesh]:
        """The body around a posed skeleton."""
        body = skeleton.trunk
        names = (self._named(part) for part in ("face", "skin", "hair", "trim"))
        look = Look(self.cut, self.number, *names)
        skull = head(body.origin("head"), body.scale * body.frames["head"], look)
        parts = [*self._trunk(body), *skull]
        for side, sign in SIDES.items():
            parts += [*self._arm(skeleton, side), *self._hand(skeleton, side, sign)]
            parts += [*self._leg(skeleton, side), *self._shoe(skeleton, side)]
        return parts

    def _named(self, part: str) -> str:
        return f"{part}{self.number}"

    def _trunk(self, body: Trunk) -> list[Mesh]:
        shirt, hips = self._sections(body, _SHIRT), self._sections(body, _HIPS)
        s, shoulders = body.scale, self.build.shoulders
        wide = [(rx * (shoulders if k >= 6 else 1.0), rz) for k, (rx, rz) in enumerate(shirt[1])]
        neck = [body.spine(0.47)[0], body.point("chest", [0, 0.05, 0.003]), body.origin("head")]
        collar = [
            body.point("chest", [0.068 * np.sin(a), 0.012 * np.cos(a) - 0.016, 0.066 * np.cos(a)])
            for a in np.linspace(0.1, 6.18, 16)
        ]
        return [
            loft(
                shirt[0][::-1],
                wide[::-1],
                shirt[2][::-1],
                self._named("shirt"),
                self.number,
                squareness=2.4,
                columns=26,
            ),
            loft(
                *(part[::-1] for part in hips),
                self._named("trousers"),
                self.number,
                squareness=2.3,
                columns=22,
            ),
            tube(
                neck,
                [0.058 * s, 0.052 * s, 0.055 * s],
                self._named("skin"),
                self.number,
                back=-body.frames["chest"][:, 2],
            ),
            tube(
                collar,
                [0.012 * s] * 16,
                self._named("trim"),
                self.number,
                back=body.frames["chest"][:, 1],
                columns=8,
            ),
        ]

    def _sections(self, body: Trunk, table: tuple) -> tuple[list, list, list]:
        """Centres, radii and frames for `loft`."""
        girth, centres, radii, frames = self.build.girth * body.scale, [], [], []
        for height, width, depth, shift in table:
            centre, frame = body.spine(height)
            centres.append(centre + body.scale * shift * frame[:, 2])
            radii.append((width * girth, depth * girth))
            frames.append(frame)
        return centres, radii, frames

    def _arm(self, skeleton: Skeleton, side: str) -> list[Mesh]:
        limb = [skeleton.joints[f"{side}_{part}"] for part in ("shoulder", "elbow", "wrist")]
        back = -skeleton.trunk.frames["chest"][:, 2]
        if self.short_sleeves:
            return [
                self._limb(limb, _ARM, (0.4, 2.0), 0.0, "skin", back),
                self._limb(limb, _ARM, (0.0, 0.62), 0.012, "shirt", back),
            ]
        return [
            self._limb(limb, _ARM, (1.7, 2.0), 0.0, "skin", back),
            self._limb(limb, _ARM, (0.0, 1.88), 0.008, "shirt", back),
        ]

    def _leg(self, skeleton: Skeleton, side: str) -> list[Mesh]:
        limb = [skeleton.joints[f"{side}_{part}"] for part in ("hip", "knee", "ankle")]
        back = -skeleton.feet[side][:, 2]
        if self.shorts:
            return [
                self._limb(limb, _LEG, (0.7, 2.0), 0.0, "skin", back),
                self._limb(limb, _LEG, (0.0, 0.85), 0.016, "trousers", back),
                self._limb(limb, _LEG, (1.72, 2.0), 0.004, "trim", back),
            ]
        return [
            self._limb(limb, _LEG, (1.8, 2.0), 0.002, "trim", back),
            self._limb(limb, _LEG, (0.0, 1.93), 0.009, "trousers", back),
        ]

    def _limb(
        self,
        joints: list[Array],
        table: tuple,
        part: tuple[float, float],
        looser: float,
        texture: str,
        back: Array,
    ) -> Mesh:
        """A stretch of a limb as one tube, rounded at its middle joint."""
        at = np.unique(np.concatenate([np.arange(0, 2.001, 0.125), [0.94, 1.06], part]))
        at = at[(at >= part[0]) & (at <= part[1]) & (np.abs(at - 1) > 0.05)]
        positions, radii = np.array(table).T
        path = np.stack([np.interp(at, [0, 1, 2], column) for column in np.array(joints).T], -1)
        girth = self.build.girth * self.build.scale
        widths = girth * np.interp(at, positions, radii) + looser
        return tube(path, widths, self._named(texture), self.number, back=back)

    def _hand(self, skeleton: Skeleton, side: str, sign: float) -> list[Mesh]:
        elbow, wrist = (skeleton.joints[f"{side}_elbow"], skeleton.joints[f"{side}_wrist"])
        along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
        chest = skeleton.trunk.frames["chest"]
        # The palm faces the middle of the body; with arms spread, the floor.
        inward = -sign * chest[:, 0] - 0.4 * chest[:, 1]
        inward = inward - along * (inward @ along)
        inward /= np.linalg.norm(inward)
        frame = self.build.scale * np.stack([np.cross(-along, inward), -along, inward], axis=1)
        thumb = 1.0 if frame[:, 0] @ chest[:, 2] > 0 else -1.0
        curl, skin_name = skeleton.curls[side], self._named("skin")
        palm = ellipsoid(
            wrist + frame @ [0, -0.052, 0],
            [0.040, 0.056, 0.019],
            frame,
            skin_name,
            self.number,
            (8, 12),
        )
        fingers = [self._finger(wrist, frame, (k - 1.5) * 0.019, curl) for k in range(4)]
        path = np.array([(0.030, -0.03, 0.006), (0.052, -0.06, 0.016), (0.047, -0.09, 0.024)])
        bent = wrist + (path * [thumb, 1, 1]) @ frame.T
        return [
            palm,
            *fingers,
            tube(bent, [0.013, 0.011, 0.009], skin_name, self.number, back=frame[:, 0], columns=6),
        ]

    def _finger(self, wrist: Array, frame: Array, aside: float, curl: float) -> Mesh:
        at, path = np.array([aside, -0.092, 0.0]), []
        for joint, length in enumerate((0.036, 0.026, 0.020)):
            path.append(at)
            bent = np.radians(12 + 85 * curl) * (joint + 1) * 0.8
            at = at + length * np.array([0, -np.cos(bent), np.sin(bent)])
        points = wrist + np.array([*path, at]) @ frame.T
        return tube(
            points,
            [0.0105, 0.010, 0.009, 0.007],
            self._named("skin"),
            self.number,
            back=frame[:, 0],
            columns=6,
        )

    def _shoe(self, skeleton: Skeleton, side: str) -> list[Mesh]:
        ankle, frame = skeleton.joints[f"{side}_ankle"], skeleton.feet[side]
        s, floor = self.build.scale, -ANKLE_HEIGHT
        section = np.stack([frame[:, 0], -frame[:, 2], frame[:, 1]], axis=1)
        upper = [(z, w, 0.5 * h, floor + 0.5 * h) for z, w, h in _SHOE]
        sole = [(z * 1.03, w * 1.12, 0.014, floor + 0.014) for z, w, _ in _SHOE]
        meshes = []
        for name, table in (("shoes", upper), ("soles", sole)):
            centres = [ankle + s * (z * frame[:, 2] + y * frame[:, 1]) for z, _, _, y in table]
            radii = [(s * w, s * h) for _, w, h, _ in table]
            meshes.append(
                loft(
                    centres,
                    radii,
                    [section] * len(table),
                    self._named(name),
                    self.number,
                    squareness=2.6,
                )
            )
        return meshes


def _shirt(pattern: str, colors: Array, prints: list[Array], rng: Rng) -> Array:
    """The cloth of a shirt, once around the trunk; a print is on the chest."""
    size = (0.95, 0.60)
    if pattern != "print":
        return cloth(pattern, colors, size, rng)
    image = cloth("plain", colors, size, rng)
    chest_print = prints[rng.integers(len(prints))]
    rows, columns = chest_print.shape[:2]
    top, left = int(0.30 * len(image)), (image.shape[1] - columns) // 2
    image[top : top + rows, left : left + columns] = chest_print
    return image
