"""Save the worktree of an experiment for `dvc exp show`; the last task of `submit -n` runs it."""

from stages.run.arguments import Arguments
from stages.run.entry import launch


def main() -> None:
    """Save the content of the worktree as the experiment NAME."""
    parser = Arguments(description=__doc__)
    parser.add_argument("name", help="of the experiment")
    args = parser.parse_args()

    from stages.jobs.git import save_experiment

    print(f"{args.name}: saved as {save_experiment(args.name)}")


if __name__ == "__main__":
    launch(main)
