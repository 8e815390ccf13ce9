"""Stage `checkpoints`: data/checkpoints, links to the fixers that params name.

DVC compares what they lead to, by its own digests of them: a checkpoint that was replaced in its
place makes the stages that read it stale. What is no path, such as a hub id, is a line of text.
"""

from stages.difix.config import BaseConfig, TuneConfig
from stages.difix.weights.checkpoints import own_output_errors, write_named
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import raise_all
from stages.run.settings.params import Params


def main() -> None:
    """Write data/checkpoints."""
    Arguments(description=__doc__).parse_args()
    params = Params.read()
    named = {
        "base.source": params.value("base", "source", BaseConfig),
        "base.components": params.value("base", "components", BaseConfig),
        "tune.init_from": params.value("tune", "init_from", TuneConfig),
    }
    raise_all(own_output_errors(named, {"base": layout.base(), "tune": layout.tuned()}))
    for key, text in named.items():
        target = layout.checkpoint(key)
        print(f"{target}: {write_named(text, target)}")


if __name__ == "__main__":
    launch(main)
