"""Gaussians of many small worlds, trained at once.

The rules are those of `splat/training`, for a batch of worlds: Adam with a rate per parameter, L1
and structural dissimilarity, duplication and splitting where the gradients of the projected means
are large, pruning of faint Gaussians. Every world has room for as many Gaussians; an unused place
holds one without opacity, which no kernel renders.
"""

import torch
from torch import Tensor

from stages.quality.metrics.ssim import ssim_of_windows
from stages.samples.worlds.config import WorldsConfig
from stages.samples.worlds.tracing import Cameras
from stages.splat.raster import rasterization
from stages.splat.rotations import rotations_from_quats
from stages.splat.training.initial import SH_C0

_UNUSED = -14.0  # opacity logit
_FAINT = 0.006
_SH_DEGREE = 1
_RATES = {
    "means": 0.006,
    "scales": 0.02,
    "quats": 0.01,
    "opacities": 0.05,
    "sh0": 0.01,
    "shN": 0.0005,
}
_LAST_RATE = 0.01  # of the means, as a share of the first
_SSIM_WEIGHT = 0.2
_REFINEMENTS = 11  # in the first 0.8 of the training
_SMALL = 0.02  # Gaussians up to this size are duplicated, larger ones split; world units
_ANISOTROPY = 0.0005  # weight of the mean scale


class Splats:
    """Gaussians [W, N, ...] of W worlds."""

    def __init__(
        self, points: Tensor, colors: Tensor, config: WorldsConfig, generator: torch.Generator
    ):
        """From points [W, M, 3] with colours [W, M, 3], M up to `config.gaussians`."""
        worlds, count, _ = points.shape
        device, self.config = points.device, config

        def padded(value: Tensor, fill: float) -> Tensor:
            rest = value.new_full((worlds, config.gaussians - count, *value.shape[2:]), fill)
            return torch.cat([value, rest], dim=1)

        size = _spacing(points).log()[..., None].expand(-1, -1, 3)
        quats = torch.rand(worlds, count, 4, generator=generator).to(device)
        values = {
            "means": padded(points, 0.0),
            "scales": padded(size, -5.0),
            "quats": padded(quats, 0.5),
            "opacities": padded(torch.full((worlds, count), -2.2, device=device), _UNUSED),
            "sh0": padded((colors[..., None, :] - 0.5) / SH_C0, 0.0),
            "shN": padded(torch.zeros(worlds, count, 3, 3, device=device), 0.0),
        }
        self.params = {name: value.contiguous().requires_grad_() for name, value in values.items()}
        groups = [
            {"params": [value], "lr": _RATES[name], "name": name}
            for name, value in self.params.items()
        ]
        self.optimizer = torch.optim.Adam(groups, eps=1e-15, fused=device.type == "cuda")
        self._gradients = torch.zeros(worlds, config.gaussians, device=device)
        self._visits = torch.zeros(worlds, config.gaussians, device=device)
        self._done = 0

    def train(
        self, cameras: Cameras, images: Tensor, steps: int, generator: torch.Generator
    ) -> None:
        """Train for so many more steps, with one view per world and step.

        Args:
            cameras: sources [W, S], any number repeated.
            images: of these, [W, S, 3, H, W'] in [0, 1].
            steps: of Adam.
            generator: of the order of the views.
        """
        every = max(1, int(0.8 * self.config.steps) // _REFINEMENTS)
        worlds, sources = images.shape[:2]
        for _ in range(steps):
            share = self._done / self.config.steps
            for group in self.optimizer.param_groups:
                if group["name"] == "means":
                    group["lr"] = _RATES["means"] * _LAST_RATE**share
            chosen = torch.randint(sources, (worlds, 1), generator=generator).to(images.device)
            rows = torch.arange(worlds, device=images.device)[:, None]
            self._step(cameras.take(chosen), images[rows, chosen])
            self._done += 1
            if self._done % every == 0 and share < 0.8:
                self._refine(generator)

    @torch.no_grad()
    def render(self, cameras: Cameras, width: int, height: int) -> tuple[Tensor, Tensor]:
        """Images [W, C, 3, H, W'] in [0, 1], and depths [W, C, H, W'], 0 without a surface."""
        image, alpha, _, _ = self._rendered(cameras, width, height, "RGB+ED")
        depth = torch.where(alpha >= 0.5, image[:, :, 3], 0.0)
        return image[:, :, :3].clamp(0, 1), depth

    def _rendered(
        self, cameras: Cameras, width: int, height: int, mode: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images [W, C, D, H, W'], alpha [W, C, H, W'], projected means and radii [W, C, N, 2]."""
        p = self.params
        arguments = (
            p["means"],
            p["quats"],
            p["scales"].exp(),
            p["opacities"].sigmoid(),
            torch.cat([p["sh0"], p["shN"]], dim=2),
            cameras.cam_from_world,
            cameras.K,
        )
        options = {"sh_degree": _SH_DEGREE, "render_mode": mode, "rasterize_mode": "antialiased"}
        if p["means"].device.type == "cuda":
            image, alpha, info = rasterization(*arguments, width, height, backend="cuda", **options)
            means2d, radii = info["means2d"], info["radii"]
        else:  # our rasteriser takes one world at a time
            parts = [
                rasterization(
                    *(one[world] for one in arguments), width, height, backend="cpu", **options
                )
                for world in range(len(p["means"]))
            ]
            image, alpha = (torch.stack([part[k] for part in parts]) for k in range(2))
            means2d, radii = (
                torch.stack([part[2][k] for part in parts]) for k in ("means2d", "radii")
            )
            self._leaves = [part[2]["means2d"] for part in parts]
        return image.movedim(-1, -3), alpha[..., 0], means2d, radii

    def _step(self, cameras: Cameras, images: Tensor) -> None:
        height, width = images.shape[-2:]
        rendered, _, means2d, radii = self._rendered(cameras, width, height, "RGB")
        means2d.retain_grad()
        for leaf in getattr(self, "_leaves", ()):
            leaf.retain_grad()
        flat, target = rendered.flatten(0, 1), images.flatten(0, 1)
        # Each world's loss is a mean, so worlds do not share the step of Adam.
        l1 = (flat - target).abs().mean()
        similarity = ssim_of_windows(flat, target).mean()
        loss = (1 - _SSIM_WEIGHT) * l1 + _SSIM_WEIGHT * (1 - similarity)
        loss = loss + _ANISOTROPY * self.params["scales"].exp().mean()
        loss = len(images) * loss
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            if hasattr(self, "_leaves"):
                gradient = torch.stack([leaf.grad for leaf in self._leaves])
            else:
                gradient = means2d.grad
            scale = torch.tensor([width / 2, height / 2], device=images.device)
            is_visible = (radii > 0).all(dim=-1)
            norm = (gradient * scale).norm(dim=-1) * is_visible
            self._gradients += norm.sum(dim=1)
            self._visits += is_visible.float().sum(dim=1)
        self.optimizer.step()

    @torch.no_grad()
    def _refine(self, generator: torch.Generator) -> None:
        """Duplicate or split the Gaussians with the largest gradients, into unused places."""
        p, device = self.params, self._gradients.device
        opacity = p["opacities"].sigmoid()
        is_faint = opacity < _FAINT
        p["opacities"].masked_fill_(is_faint, _UNUSED)
        mean = (self._gradients / self._visits.clamp(min=1)).masked_fill(is_faint, -1)
        used = (~is_faint).sum(dim=1, keepdim=True)
        most = self.config.gaussians // 6
        score, source = mean.topk(most, dim=1)
        place = opacity.masked_fill(is_faint, -1).topk(most, dim=1, largest=False).indices
        rank = torch.arange(most, device=device)
        free = self.config.gaussians - used
        # A third of the Gaussians multiplies at a time, while there is room.
        is_grown = (rank < free) & (rank < 0.4 * used) & (score > 0)
        rows = torch.arange(len(mean), device=device)[:, None]
        size = p["scales"][rows, source].exp()
        is_split = (size.amax(dim=-1) > _SMALL) & is_grown
        draw = torch.randn(2, *size.shape, generator=generator).to(device)
        rotation = rotations_from_quats(p["quats"][rows, source])
        offsets = (rotation @ (draw * size)[..., None])[..., 0] * is_split[..., None]
        shrink = torch.where(is_split, 1.6, 1.0).log()[..., None]
        for name, value in p.items():
            copied, replaced = value[rows, source], value[rows, place]
            kept = copied.clone()
            if name == "means":
                copied, kept = copied + offsets[0], kept + offsets[1]
            if name == "scales":
                copied, kept = copied - shrink, kept - shrink
            grown = is_grown.reshape(*is_grown.shape, *[1] * (value.dim() - 2))
            value[rows, source] = kept
            value[rows, place] = torch.where(grown, copied, replaced)
            state = self.optimizer.state[value]
            for key in ("exp_avg", "exp_avg_sq"):
                state[key][rows, place] = torch.where(grown, 0.0, state[key][rows, place])
        self._gradients.zero_()
        self._visits.zero_()


def _spacing(points: Tensor) -> Tensor:
    """Root mean square distance [W, M] to the three nearest of the other points [W, M, 3]."""
    result = []
    for one in points:
        nearest = torch.cdist(one, one).topk(4, largest=False).values[:, 1:]
        result.append(nearest.square().mean(dim=-1).sqrt())
    return torch.stack(result).clamp(1e-4, 1.0)
