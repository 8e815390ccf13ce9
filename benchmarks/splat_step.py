"""A step of training beside the bare call of gsplat, forward and backward, and where its time goes.

    python -m benchmarks.splat_step [--gaussians 200000] [--size 640x480] [--rasteriser own]
        [--out FILE]

The bare call is `gsplat.rasterization` with harmonics of degree 3, and the gradients of all five
inputs of a weighted sum of its image. A step is the trainer's: render, loss, gradients, Adam
and the statistics of densification. Times are medians over steps, by events on the device; the
parts are sums over the device's own kernels, as torch's profiler counts them.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import raster_scenes
from benchmarks import splat_cases as cases
from benchmarks.command_line import launch, size
from benchmarks.recipes import RECIPES
from stages.scenes.cameras import Camera
from stages.scenes.frames import Sim3
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.raster import rasterization
from stages.splat.render import render
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView

# Measured on one H200, ms; a step may take twice as long.
BARE_MS = 1.58
MOST = 2.0
STEPS = 60
RATES = (
    "means_lr",
    "scales_lr",
    "quats_lr",
    "opacities_lr",
    "sh0_lr",
    "shN_lr",
    "pose_opt_lr",
)
PARTS = {
    "rasterise, backward": ("rasterize_to_pixels_3dgs_bwd", "blend_backward"),
    "rasterise, forward": ("rasterize_to_pixels_3dgs_fwd", "blend"),
    "Adam and statistics": ("_adam", "_accumulate"),
    "loss": ("window_slopes", "pixel_slopes"),
    "tiles": ("_boxes", "_fill_slots", "Radix", "DeviceScan", "searchsorted", "reverse_indices"),
    "projection": ("projection_ewa", "project"),
    "harmonics": ("spherical_harmonics",),
    "poses": ("_corrected", "_slopes"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gaussians", type=int, default=200_000)
    parser.add_argument("--size", type=size, default="640x480", help="width x height, px")
    parser.add_argument("--rasteriser", choices=("own", "gsplat"), default="own")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cases.use_gpu()
    usual = args.gaussians == 200_000 and args.size == "640x480"
    rows = []
    for recipe in RECIPES:
        chosen = {"rasteriser": args.rasteriser}
        config = frozen(RECIPES[recipe](7000)).model_copy(update=chosen)
        trainer = trained(config, args)
        bare = bare_ms(trainer)
        step = step_ms(trainer)
        rows += [
            cases.row(f"{recipe}: bare call", bare, "ms", anchor=BARE_MS if usual else None),
            cases.row(f"{recipe}: step", step, "ms"),
            cases.row(f"{recipe}: step over bare call", step / bare, "times", target=MOST),
        ]
        rows += [
            cases.row(f"{recipe}: step, {part}", spent, "ms") for part, spent in parts(trainer)
        ]
    cases.show(rows)
    cases.write_rows(args.out, rows)


def frozen(config: TrainConfig) -> TrainConfig:
    """A recipe whose Gaussians stay as they are, so that each step does the same work."""
    strategy = config.strategy.model_copy(update={"refine_start_iter": 10**6})
    rates = {key: getattr(config, key) * 1e-9 for key in RATES}
    return config.model_copy(update=rates | {"strategy": strategy})


def trained(config: TrainConfig, args: argparse.Namespace) -> Trainer:
    """A trainer in mid-training: Gaussians on surfaces, and images near their renders."""
    width, height = map(int, args.size.split("x"))
    (means, quats, scales, opacities, sh), views, Ks = raster_scenes.room(
        args.gaussians, width, height
    )
    gaussians = Gaussians(
        means=means,
        quats=quats,
        log_scales=scales.log(),
        opacity_logits=opacities.logit(),
        sh0=sh[:, :1].contiguous(),
        shN=sh[:, 1:].contiguous(),
        world_from_norm=Sim3.identity(),
        antialiased=config.antialiased,
    ).to("cuda")
    train_views = []
    for number, (pose, K) in enumerate(zip(views.double(), Ks.double(), strict=True)):
        camera = Camera(f"{number}", K.numpy(), pose.numpy(), width, height)
        image = render(gaussians, camera, "cuda").rgb
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(number))
        train_views.append(TrainView(camera, (image + 0.05 * noise.to("cuda")).clamp(0, 1)))
    nothing = torch.empty(0, 3).double().numpy()
    return Trainer(train_views, nothing, nothing.astype("uint8"), config, "cuda", gaussians)


def bare_ms(trainer: Trainer) -> float:
    """gsplat's own call, and its gradients."""
    params, config, camera = trainer.state.params, trainer.config, trainer.views.cameras[0]
    inputs = [
        params["means"],
        params["quats"],
        torch.exp(params["scales"]),
        torch.sigmoid(params["opacities"]),
        torch.cat([params["sh0"], params["shN"]], dim=1),
    ]
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    weights = torch.randn(1, camera.height, camera.width, 3, device="cuda")

    def call() -> None:
        images, _, _ = rasterization(
            *leaves,
            trainer.views.viewmats[:1],
            trainer.views.Ks[:1],
            camera.width,
            camera.height,
            backend="cuda",
            sh_degree=3,
            rasterize_mode="antialiased" if config.antialiased else "classic",
        )
        torch.autograd.grad((images * weights).sum(), leaves)

    return cases.timed_ms(call)


def step_ms(trainer: Trainer) -> float:
    """Mean over steps without a pause between them."""
    for step in range(1, 1 + 2 * len(trainer.views.cameras)):
        trainer.step(step)
    first = 1 + 2 * len(trainer.views.cameras)

    def several() -> None:
        for step in range(first, first + STEPS):
            trainer.step(step)

    return cases.timed_ms(several, repeats=7, warmup=1) / STEPS


def parts(trainer: Trainer) -> list[tuple[str, float]]:
    """Time of each part of a step on the device, ms, largest first."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for step in range(1, 1 + STEPS):
            trainer.step(step)
        torch.cuda.synchronize()
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        matching = (part for part, words in PARTS.items() if any(w in event.key for w in words))
        spent[next(matching, "everything else")] += event.self_device_time_total / 1e3 / STEPS
    return sorted(spent.items(), key=lambda part: -part[1])


if __name__ == "__main__":
    launch(main)
