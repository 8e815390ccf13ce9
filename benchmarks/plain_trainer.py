"""A plain trainer to compare with: the loop that gsplat's example trainer has, on one dataset.

    python -m benchmarks.plain_trainer DATA RESULT --steps 7000 [--recipe default] [--seed 42]
        [--device cpu]

One image per step from a loader that decodes it, one call of `gsplat.rasterization`, one Adam per
parameter, gsplat's own strategy, and a loss that is read after each step; every eighth image is
held out. Its fused SSIM is this project's, because the usual one is on no package index; on a
CPU, where gsplat has no kernels, so is its rasteriser. Writes stats/val_step<N>.json and
stats/train_step<N>_rank0.json as the example trainer does. Where poses are learnt there is also
`psnr_moved`, of held-out views whose cameras follow the motion that all learnt poses share.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gsplat.strategy import DefaultStrategy
from PIL import Image
from torch import Tensor

from benchmarks import captured_images
from benchmarks.command_line import launch
from benchmarks.recipes import RECIPES
from stages.quality.metrics.psnr import psnr
from stages.quality.metrics.ssim import ssim
from stages.run.files import write_json
from stages.scenes.cameras import Camera
from stages.scenes.frames import Sim3, fit_sim3_from_cameras, normalisation
from stages.splat.config import TrainConfig
from stages.splat.poses import corrected
from stages.splat.raster import rasterization
from stages.splat.training import initial
from stages.splat.training.losses import photometric

RATES = ("means", "scales", "quats", "opacities", "sh0", "shN")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--schedule", type=int, help="steps that rates are planned for, if more")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="default")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args()
    config = RECIPES[args.recipe](args.schedule or args.steps)
    config = config.model_copy(update={"seed": args.seed})
    plain = Plain(args.data, config, args.device)
    seconds = plain.train(args.steps)
    stats, last = args.result / "stats", args.steps - 1
    count = len(plain.params["means"])
    write_json(stats / f"train_step{last:04d}_rank0.json", {"ellipse_time": seconds})
    write_json(stats / f"val_step{last:04d}.json", plain.evaluate() | {"num_GS": count})


class Images(torch.utils.data.Dataset):
    """Decodes an image at each access."""

    def __init__(self, files: list[Path]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        pixels = np.asarray(Image.open(self.files[index]))
        return index, torch.from_numpy(pixels.astype(np.float32))


class Plain:
    """One set of Gaussians and its optimisers."""

    def __init__(self, data: Path, config: TrainConfig, device: str):
        self.config, self.device = config, device
        capture = captured_images.read(data)
        norm_from_world, scale = normalisation(capture.cameras, capture.points)
        self.scene_scale = 1.1 * scale
        cameras = [norm_from_world.apply_camera(camera) for camera in capture.cameras]
        files = [data / "images" / camera.name for camera in cameras]
        held = range(0, len(cameras), 8)
        self.test = [(cameras[k], files[k]) for k in held]
        self.cameras = [camera for k, camera in enumerate(cameras) if k not in held]
        images = Images([file for k, file in enumerate(files) if k not in held])
        self.loader = torch.utils.data.DataLoader(
            images,
            batch_size=1,
            shuffle=True,
            num_workers=min(4, os.cpu_count() or 1),
            persistent_workers=True,
            pin_memory=device == "cuda",
        )
        torch.manual_seed(config.seed)
        start, _ = initial.parameters(
            norm_from_world.apply(capture.points), capture.colors, self.scene_scale, config
        )
        self.params = {n: torch.nn.Parameter(start[n].to(device)) for n in RATES}
        rates = {n: getattr(config, f"{n}_lr") for n in RATES}
        rates["means"] *= self.scene_scale
        self.optimizers = {
            n: torch.optim.Adam([p], lr=rates[n], eps=1e-15) for n, p in self.params.items()
        }
        options = config.strategy.model_dump(exclude={"kind", "halve_every"})
        self.strategy = DefaultStrategy(**options)
        self.state = self.strategy.initialize_state(scene_scale=self.scene_scale)
        self.corrections = torch.zeros(len(self.cameras), 9, device=device, requires_grad=True)
        self.poses = torch.optim.Adam(
            [self.corrections], lr=config.pose_opt_lr, weight_decay=config.pose_opt_reg
        )
        decayed = [self.optimizers["means"], *([self.poses] if config.pose_opt else [])]
        self.schedules = [
            torch.optim.lr_scheduler.ExponentialLR(one, 0.01 ** (1 / config.steps))
            for one in decayed
        ]

    def train(self, steps: int) -> float:
        """Train; the seconds that it took."""
        begin = time.perf_counter()
        for step, (index, pixels) in zip(range(steps), self._endless(), strict=False):
            self._step(step, int(index), pixels.to(self.device)[0] / 255)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def evaluate(self) -> dict[str, Any]:
        """Mean PSNR and SSIM of the held-out views."""
        scores = dict(zip(("psnr", "ssim"), self._scores(Sim3.identity()), strict=True))
        if self.config.pose_opt:
            learnt_from_given, _ = fit_sim3_from_cameras(self.cameras, self._learnt_cameras())
            scores["psnr_moved"] = self._scores(learnt_from_given)[0]
        return scores

    def _scores(self, learnt_from_given: Sim3) -> list[float]:
        scores = []
        for given, file in self.test:
            camera = learnt_from_given.apply_camera(given)
            with torch.no_grad():
                image, _ = self._render(self._tensor(camera.cam_from_world), camera, 3)
            truth = torch.from_numpy(np.asarray(Image.open(file)) / np.float32(255)).to(self.device)
            a, b = (x.permute(2, 0, 1)[None] for x in (image.clamp(0, 1), truth))
            scores.append([float(psnr(a, b)), float(ssim(a, b))])
        return np.mean(scores, axis=0).tolist()

    @torch.no_grad()
    def _learnt_cameras(self) -> list[Camera]:
        given = torch.stack([self._tensor(camera.cam_from_world) for camera in self.cameras])
        poses = corrected(given, self.corrections).double().cpu().numpy()
        return [camera.moved(pose) for camera, pose in zip(self.cameras, poses, strict=True)]

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def _step(self, step: int, index: int, target: Tensor) -> None:
        config, camera = self.config, self.cameras[index]
        pose = self._tensor(camera.cam_from_world)
        if config.pose_opt:
            given = torch.linalg.inv(torch.linalg.inv(pose))  # from camera to world and back
            pose = corrected(given, self.corrections[index])
        image, info = self._render(pose, camera, min(step // config.sh_degree_interval, 3))
        self.strategy.step_pre_backward(self.params, self.optimizers, self.state, step, info)
        loss = photometric(image, target, config.ssim_lambda)
        if config.scale_reg > 0:
            loss = loss + config.scale_reg * torch.exp(self.params["scales"]).mean()
        loss.backward()
        loss.item()
        for optimizer in [*self.optimizers.values(), *([self.poses] if config.pose_opt else [])]:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for schedule in self.schedules:
            schedule.step()
        self.strategy.step_post_backward(
            self.params, self.optimizers, self.state, step, info, packed=False
        )

    def _render(self, pose: Tensor, camera: Camera, degree: int) -> tuple[Tensor, dict[str, Any]]:
        params, config = self.params, self.config
        images, _, info = rasterization(
            params["means"],
            params["quats"],
            torch.exp(params["scales"]),
            torch.sigmoid(params["opacities"]),
            torch.cat([params["sh0"], params["shN"]], 1),
            pose[None],
            self._tensor(camera.K)[None],
            camera.width,
            camera.height,
            backend=self.device,
            sh_degree=degree,
            near_plane=config.near_plane,
            far_plane=config.far_plane,
            rasterize_mode="antialiased" if config.antialiased else "classic",
        )
        return images[0], info

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)


if __name__ == "__main__":
    launch(main)
