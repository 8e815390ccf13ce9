"""Apply the values of studies/<name>.yaml to params.yaml, keeping its comments and formatting."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import UserError
from stages.run.plurals import counted, first_few

if TYPE_CHECKING:
    from stages.run.settings.params import Params


def main() -> None:
    """Print every change; write params.yaml unless `--check`."""
    parser = Arguments(description=__doc__)
    parser.add_argument("overlay", type=Path, help="such as studies/full.yaml")
    parser.add_argument("--check", action="store_true", help="print the changes, write nothing")
    args = parser.parse_args()

    from stages.run.files import whole_file
    from stages.run.settings.edits import applied, changes, left_over
    from stages.run.settings.params import Params, plain
    from stages.workspace.probes import words

    params, overlay = Params.read(), Params.read(args.overlay)
    edits = changes(params, overlay)
    for change in edits:
        print(f"{params.where(change.keys)}: {plain(change.old)!r} -> {plain(change.new)!r}")
    others = left_over(params, overlay, words(["git", "show", f"HEAD:./{params.path}"]) or "")
    if beneath := _study_of(params, others):
        print(f"on top of {beneath}: {counted(len(others), 'value')} of it stay")
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


def _study_of(params: "Params", keys: Sequence[tuple[str, ...]]) -> Path | None:
    """The file in studies/ that has the values of params.yaml at all these keys."""
    from stages.run.settings.edits import all_from
    from stages.run.settings.params import Params

    for path in sorted(Path("studies").glob("*.yaml")) if keys else ():
        try:
            if all_from(params, Params.read(path), keys):
                return path
        except UserError:  # a file that is no overlay
            continue
    return None


if __name__ == "__main__":
    launch(main)
