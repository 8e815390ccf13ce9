"""Stage `code`: data/code, digests of the code that each stage depends on."""

from stages.run import digests
from stages.run.arguments import Arguments
from stages.run.entry import launch


def main() -> None:
    """Write the digests that have changed."""
    Arguments(description=__doc__).parse_args()
    digests.bring_up_to_date()


if __name__ == "__main__":
    launch(main)
