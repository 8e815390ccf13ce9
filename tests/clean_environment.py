"""Commands of tests, without what the shell of the tests says to DVC, SLURM or the project."""

import os
import sys
from pathlib import Path

UNWANTED = ("DVC_", "SLURM_", "SBATCH_", "SPLATFIX_")
# A new repository of git and DVC in the current folder.
NEW_REPOSITORY = (
    ("git", "init", "-q"),
    ("git", "config", "user.email", "test@localhost"),
    ("git", "config", "user.name", "test"),
    ("dvc", "init", "-q"),
)


def clean_environment(**values: str) -> dict[str, str]:
    """The environment without UNWANTED, with this Python first on PATH, and with `values`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(UNWANTED)}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return kept | {"PATH": path} | values
