"""Tasks of a submission in a job of the cluster, submitted by `stages.submit`."""

import os
import sys
from pathlib import Path

from stages.run.arguments import Arguments
from stages.run.entry import launch


def main() -> None:
    """Run the tasks at the array index; after a signal to stop, requeue the job."""
    parser = Arguments(description=__doc__)
    parser.add_argument("submission", type=Path, help="folder of the submission")
    parser.add_argument("jobs", nargs="+", help="addresses of tasks, each on a line, by index")
    parser.add_argument("--part", action="store_true", help="tasks beside which others run")
    args = parser.parse_args()

    from stages.jobs import slurm, task_process
    from stages.jobs.config import SlurmConfig
    from stages.jobs.submission import read_folder
    from stages.jobs.task_run import run_side_by_side, run_tasks
    from stages.run.settings.params import Params

    index = 0 if args.part else int(os.environ.get(slurm.TASK, "0"))
    addresses = args.jobs[index].split("\n")
    submission = read_folder(args.submission)
    config = Params.read().section("slurm", SlurmConfig)
    chains = submission.plan.chains(addresses)
    if len(chains) > 1:
        code = run_side_by_side(submission, chains)
    else:
        code = run_tasks(submission, addresses, config)
    if code == task_process.STOPPED and slurm.JOB in os.environ and not args.part:
        stopped = [one for one in addresses if submission.noted(one).get("state") == "stopped"]
        names = ", ".join(stopped)
        message = f"{names}: stopped and queued again, to continue from its last state"
        if not slurm.requeue(config, message):
            for one in stopped:
                submission.note(one, "cancelled")
            print(f"{names}: stopped; submit it again to continue", flush=True)
    sys.exit(code)


if __name__ == "__main__":
    launch(main)
