"""One task of a submission in a job of the cluster, submitted by `stages.submit`."""

import os
import sys
from pathlib import Path

from stages.run.arguments import Arguments
from stages.run.entry import launch


def main() -> None:
    """Run the task at the array index; after a signal to stop, requeue the job."""
    parser = Arguments(description=__doc__)
    parser.add_argument("submission", type=Path, help="folder of the submission")
    parser.add_argument("addresses", nargs="+", help="tasks of the array, by index")
    args = parser.parse_args()

    from stages.jobs import slurm, task_process
    from stages.jobs.config import SlurmConfig
    from stages.jobs.submission import read_folder
    from stages.jobs.task_run import TaskRun
    from stages.run.errors import UserError
    from stages.run.settings.params import Params

    address = args.addresses[int(os.environ.get(slurm.TASK, "0"))]
    submission = read_folder(args.submission)
    try:
        config = Params.read().section("slurm", SlurmConfig)
        code = TaskRun(submission, address, config.resources(address).wrap).run()
    except UserError:
        submission.note(address, "failed", code=2)
        raise
    if code == task_process.STOPPED and slurm.JOB in os.environ:
        if slurm.requeue(config):
            print(
                f"{address}: stopped and queued again, to continue from its last state", flush=True
            )
        else:
            submission.note(address, "cancelled")
            print(f"{address}: stopped; submit it again to continue", flush=True)
    sys.exit(code)


if __name__ == "__main__":
    launch(main)
