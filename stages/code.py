"""Stage `code`: data/code, digests of the code that each stage depends on."""

import argparse

from stages.run import digests
from stages.run.entry import launch


def main() -> None:
    """Write the digests that have changed."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    digests.bring_up_to_date()


if __name__ == "__main__":
    launch(main)
