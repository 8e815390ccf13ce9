"""Build gsplat's CUDA kernels where there is a GPU: once, before jobs need them together."""

import argparse

from stages.run.entry import launch


def main() -> None:
    """Load the kernels, which builds them when they are not there; without a GPU do nothing."""
    argparse.ArgumentParser(description=__doc__).parse_args()

    from stages.splat.raster import choose_backend

    backend, reason = choose_backend("auto")
    print(f"kernels: {backend} ({reason})")


if __name__ == "__main__":
    launch(main)
