"""What follows from the step number alone: decaying learning rates, and the degree of harmonics."""

from dataclasses import dataclass

from stages.splat.config import TrainConfig

FINAL_SHARE = 0.01  # of a decaying learning rate, at the last step


@dataclass(frozen=True)
class Schedule:
    """The schedule of one training in its normalised frame."""

    config: TrainConfig
    scene_scale: float
    start_degree: int = 0  # of the harmonics that training starts from

    def means_lr(self, step: int) -> float:
        """Learning rate of the means at a step, in the normalised frame."""
        decay = FINAL_SHARE ** (step / self.config.steps)
        return self.config.means_lr * self.scene_scale * decay

    def poses_lr(self, step: int) -> float:
        """Learning rate of the pose corrections at a step."""
        return self.config.pose_opt_lr * FINAL_SHARE ** (step / self.config.steps)

    def colors_lr(self, step: int) -> float:
        """Learning rate of the maps of colours at a step."""
        return self.config.color_opt_lr * FINAL_SHARE ** (step / self.config.steps)

    def sh_degree(self, step: int) -> int:
        """Degree of the harmonics that are rendered at a step; it rises from `start_degree`."""
        risen = self.start_degree + step // self.config.scaled(self.config.sh_degree_interval)
        return min(risen, self.config.sh_degree)
