"""Apply the values of studies/<name>.yaml to params.yaml, keeping its comments and formatting."""

from pathlib import Path

from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.plurals import counted, first_few


def main() -> None:
    """Print every change; write params.yaml unless `--check`."""
    parser = Arguments(description=__doc__)
    parser.add_argument("overlay", type=Path, help="such as studies/full.yaml")
    parser.add_argument("--check", action="store_true", help="print the changes, write nothing")
    args = parser.parse_args()

    from stages.run.files import whole_file
    from stages.run.settings.edits import all_from, applied, changes, left_over
    from stages.run.settings.params import Params, plain
    from stages.workspace.probes import words

    params, overlay = Params.read(), Params.read(args.overlay)
    edits = changes(params, overlay)
    for change in edits:
        print(f"{params.where(change.keys)}: {plain(change.old)!r} -> {plain(change.new)!r}")
    others = left_over(params, overlay, words(["git", "show", f"HEAD:./{params.path}"]) or "")
    studies = [path for path in sorted(Path("studies").glob("*.yaml")) if others]
    if beneath := [path for path in studies if all_from(params, Params.read(path), others)]:
        print(f"on top of {beneath[0]}: {counted(len(others), 'value')} of it stay")
    elif others:
        names = [".".join(map(str, keys)) for keys in others]
        print(
            f"left from before, unlike the committed {params.path}: "
            f"{counted(len(others), 'value')} ({first_few(names)}); "
            "`python -m stages.overlay studies/demo.yaml` first takes back what a study set"
        )
    if not edits:
        print(f"{params.path} has these values already")
    elif args.check:
        print(f"{counted(len(edits), 'value')} would change; nothing was written")
    else:
        text = applied(params.path.read_text(), edits)
        with whole_file(params.path) as scratch:
            scratch.write_text(text)
        print(f"{counted(len(edits), 'value')} changed; next: python -m stages.check")


if __name__ == "__main__":
    launch(main)
