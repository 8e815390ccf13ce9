"""Save the worktree of an experiment for `dvc exp show`; the last task of `submit -n` runs it."""

import argparse

from stages.run.entry import launch


def main() -> None:
    """Make the experiment NAME of what the worktree holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the experiment")
    given = parser.parse_args()

    from stages.jobs.git import save_experiment

    print(f"{given.name}: saved as {save_experiment(given.name)}")


if __name__ == "__main__":
    launch(main)
