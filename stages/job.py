"""One task of a submission, as a job of the cluster runs it; `stages.submit` sends it."""

import argparse
import os
import sys
from pathlib import Path

from stages.run.entry import launch


def main() -> None:
    """Run the task whose place in the list is the array index; after a stop, queue again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("submission", type=Path, help="folder of the submission")
    parser.add_argument("addresses", nargs="+", help="tasks of the array, by index")
    given = parser.parse_args()

    from stages.jobs import slurm
    from stages.jobs import task_process as process
    from stages.jobs.config import SlurmConfig
    from stages.jobs.submission import read_folder
    from stages.jobs.task_run import Attempt
    from stages.run.errors import UserError
    from stages.run.settings.params import Params

    address = given.addresses[int(os.environ.get(slurm.TASK, "0"))]
    submission = read_folder(given.submission)
    try:
        code = Attempt(submission, address).run()
    except UserError:
        submission.note(address, "failed", code=2)
        raise
    if code == process.STOPPED and slurm.JOB in os.environ:
        if slurm.requeue(Params.read().section("slurm", SlurmConfig)):
            print(f"{address}: stopped and queued again, to go on from its last state", flush=True)
        else:
            submission.note(address, "cancelled")
            print(f"{address}: stopped; send it again to go on", flush=True)
    sys.exit(code)


if __name__ == "__main__":
    launch(main)
