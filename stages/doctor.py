"""Look at this machine: what would fail or mislead a run, and what mends it."""

import argparse
import json
import sys

from stages.run.entry import launch


def main() -> None:
    """Print a line a finding; end with 1 when one of them fails, else with 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--quick", action="store_true", help="skip the kernels of the GPU")
    given = parser.parse_args()

    from dataclasses import asdict

    from stages.workspace.doctor import examine
    from stages.workspace.findings import FAIL, told, worst

    findings = examine(quick=given.quick)
    status = worst(findings)
    if given.json:
        print(
            json.dumps({"status": status, "findings": [asdict(one) for one in findings]}, indent=2)
        )
    else:
        print(told(findings))
    sys.exit(1 if status == FAIL else 0)


if __name__ == "__main__":
    launch(main)
