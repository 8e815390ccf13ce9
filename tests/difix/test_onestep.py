"""The closed form of one denoising step, against diffusers' own scheduler."""

import pytest
import torch
from diffusers import DDPMScheduler
from fixers import random_images

from stages.difix.network.onestep import (
    BETA_END,
    BETA_START,
    NOISING_STEPS,
    alpha_bar,
    clean_from_noisy,
)


def scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=NOISING_STEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        timestep_spacing="trailing",
        steps_offset=1,
    )


@pytest.mark.parametrize("t", [0, 1, 199, 500, 999])
def test_alpha_bar_is_the_schedulers(t: int) -> None:
    assert alpha_bar(t) == pytest.approx(float(scheduler().alphas_cumprod[t]), rel=2e-5)


def test_one_step_is_the_schedulers_only_step() -> None:
    """With one timestep set, the scheduler's step leads to what it takes for clean."""
    plan = scheduler()
    plan.set_timesteps(1)
    plan.timesteps = torch.tensor([199])
    noisy, noise = 2 * random_images(2, 4, 6, 8) - 1, 2 * random_images(2, 4, 6, 8, seed=1) - 1
    wanted = plan.step(noise, 199, noisy).prev_sample
    torch.testing.assert_close(clean_from_noisy(noisy, noise, 199), wanted, rtol=1e-4, atol=1e-5)


def test_no_noise_scales_alone() -> None:
    noisy = random_images(1, 4, 2, 2)
    clean = clean_from_noisy(noisy, torch.zeros_like(noisy), 199)
    torch.testing.assert_close(clean, noisy / alpha_bar(199) ** 0.5)


@pytest.mark.parametrize("t", [-1, 1000])
def test_step_outside_the_schedule_is_refused(t: int) -> None:
    with pytest.raises(AssertionError, match="noising step"):
        alpha_bar(t)
