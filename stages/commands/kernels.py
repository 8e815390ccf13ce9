"""Build gsplat's CUDA kernels if there is a GPU: once, before parallel jobs need them."""

from stages.run.arguments import Arguments
from stages.run.entry import launch


def main() -> None:
    """Load the kernels, which builds them if necessary; without a GPU do nothing."""
    Arguments(description=__doc__).parse_args()

    from stages.run.settings.params import Params
    from stages.splat.config import TrainConfig
    from stages.splat.raster import choose_backend

    backend, reason = choose_backend(Params.read().value("train", "backend", TrainConfig))
    print(f"kernels: {backend} ({reason})")


if __name__ == "__main__":
    launch(main)
