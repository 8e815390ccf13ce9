import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from tuning import small_fixer

from stages.difix.tuning.validation import Sample, Validator
from stages.scenes.images import read_image

CPU = torch.device("cpu")


def samples(count: int = 3, error: float = 0.1) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    targets = 0.2 + 0.6 * torch.rand(count, 3, 48, 32, generator=generator)
    return [Sample(target + error, target, target.flip(-1)) for target in targets]


def test_the_render_itself_scores_by_its_error() -> None:
    validator = Validator(samples(error=0.1), None, CPU)
    means = validator.means(validator.sums(None, "own", 0, 1))
    assert means["psnr"] == pytest.approx(20.0, abs=1e-3)
    assert means["lpips"] is None


def test_equal_images_have_a_finite_score() -> None:
    validator = Validator(samples(error=0.0), None, CPU)
    means = validator.means(validator.sums(None, "own", 0, 1))
    assert means["psnr"] is not None
    assert math.isfinite(means["psnr"])
    assert means["ssim"] == pytest.approx(1.0)


def test_sums_of_processes_equal_those_of_one() -> None:
    validator = Validator(samples(), None, CPU)
    whole = validator.sums(None, "own", 0, 1)
    shares = validator.sums(None, "own", 0, 2) + validator.sums(None, "own", 1, 2)
    torch.testing.assert_close(whole, shares)
    assert float(whole[3]) == 3


def test_a_reference_can_be_withheld() -> None:
    counts: list[int] = []

    def fixer(views: Tensor) -> Tensor:
        counts.append(views.shape[1])
        return views[:, 0]

    validator = Validator(samples(1), None, CPU)
    validator.output(fixer, validator.samples[0])  # type: ignore[arg-type]
    validator.output(fixer, validator.samples[0], with_reference=False)  # type: ignore[arg-type]
    assert counts == [2, 1]
    assert validator.has("withheld")
    assert not Validator(samples(1), None, CPU, with_reference=False).has("withheld")


def test_a_wrong_reference_is_that_of_the_sample_before() -> None:
    used: list[Tensor] = []

    def fixer(views: Tensor) -> Tensor:
        used.append(views[0, 1])
        return views[:, 0]

    validator = Validator(samples(3), None, CPU)
    validator.sums(fixer, "wrong", 0, 1)  # type: ignore[arg-type]
    references = [one.reference for one in validator.samples]
    for index, one in enumerate(used):
        assert torch.equal(one, references[index - 1])
    assert not Validator(samples(1), None, CPU).has("wrong"), "there is no other sample"


def test_warped_references_are_channels_and_their_first_is_on_the_sheet(tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = []

    def fixer(views: Tensor) -> Tensor:
        shapes.append(tuple(views.shape))
        return views[:, 0, :3]

    image, warped = torch.rand(3, 48, 32), torch.rand(2, 4, 48, 32)
    validator = Validator([Sample(image, image, warped)], None, CPU, on_sheet=(0,))
    validator.output(fixer, validator.samples[0])  # type: ignore[arg-type]
    validator.output(fixer, validator.samples[0], with_reference=False)  # type: ignore[arg-type]
    assert shapes == [(1, 1, 11, 48, 32), (1, 1, 3, 48, 32)]
    validator.write_sheet(fixer, tmp_path, 1)  # type: ignore[arg-type]
    sheet = read_image(tmp_path / "step_000001.png")
    assert abs(sheet[:, 96:] - warped[0, :3].permute(1, 2, 0).numpy()).max() < 0.5 / 255 + 1e-6


def test_output_is_clamped_before_it_is_measured() -> None:
    """Outputs may leave the range of images, which files cannot hold."""
    sample = Sample(*(torch.full((3, 48, 32), value) for value in (0.0, 1.0, 0.5)))
    validator = Validator([sample], None, CPU)
    for shift, wanted in ((1.5, 1.0), (-0.5, 0.0)):
        output = validator.output(lambda views, by=shift: views[:, 0] + by, sample)  # type: ignore[arg-type]
        assert torch.equal(output, torch.full((1, 3, 48, 32), wanted))


def test_a_sheet_has_render_fixed_view_ground_truth_and_reference(tmp_path: Path) -> None:
    validator = Validator(samples(), None, CPU, on_sheet=(0, 2))
    validator.write_sheet(small_fixer(), tmp_path, 7)
    sheet = read_image(tmp_path / "step_000007.png")
    assert sheet.shape == (2 * 48, 4 * 32, 3)
    target = validator.samples[2].target.permute(1, 2, 0).numpy()
    assert abs(sheet[48:, 64:96] - target).max() < 0.5 / 255 + 1e-6
    Validator(samples(), None, CPU).write_sheet(small_fixer(), tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()


def test_lpips_is_measured_where_its_weights_exist(lpips_weights: Path) -> None:
    from stages.quality.metrics.lpips import Lpips

    lpips = Lpips(lpips_weights, "alex")
    validator = Validator(samples(2), lpips, CPU)
    means = validator.means(validator.sums(None, "own", 0, 1))
    wanted = [float(lpips(one.image[None], one.target[None])) for one in validator.samples]
    assert means["lpips"] == pytest.approx(sum(wanted) / 2, abs=1e-5)
