"""Save the worktree of an experiment for `dvc exp show`; the last task of `submit -n` runs it."""

import argparse

from stages.run.entry import launch


def main() -> None:
    """Make the experiment NAME of what the worktree holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the experiment")
    given = parser.parse_args()

    from stages.jobs.experiment import save

    print(f"{given.name}: saved as {save(given.name)}")


if __name__ == "__main__":
    launch(main)
