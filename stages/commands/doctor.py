"""Check this machine: what would fail or mislead a run, with the fix."""

import json
import sys

from stages.run.arguments import Arguments
from stages.run.entry import launch


def main() -> None:
    """Print a line per finding; the exit code is 1 if one fails, else 0."""
    parser = Arguments(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--quick", action="store_true", help="skip the kernels of the GPU")
    args = parser.parse_args()

    from dataclasses import asdict

    from stages.workspace.doctor import examine
    from stages.workspace.findings import FAIL, findings_text, worst

    findings = examine(quick=args.quick)
    status = worst(findings)
    if args.json:
        print(
            json.dumps({"status": status, "findings": [asdict(one) for one in findings]}, indent=2)
        )
    else:
        print(findings_text(findings))
    sys.exit(1 if status == FAIL else 0)


if __name__ == "__main__":
    launch(main)
