"""Stage `base`: the untuned fixer that `base.source` names, data/difix/base."""

import tempfile
from pathlib import Path

from stages.difix.config import BaseConfig
from stages.difix.weights.checkpoints import checkpoint_errors
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.errors import raise_all
from stages.run.files import whole_folder
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig

STAGE, ITEM = "base", "fixer"


def main() -> None:
    """Write data/difix/base."""
    Arguments(description=__doc__).parse_args()
    params = Params.read()
    config = params.section("base", BaseConfig)
    raise_all(checkpoint_errors(config, None, params.where, ask_hub=False))

    from stages.difix.base_fixer import untuned
    from stages.difix.weights.card import write_base_card
    from stages.difix.weights.folders import write_folder
    from stages.run.checkpoint import Checkpoint, forget
    from stages.run.provenance import cost
    from stages.scenes.study.overlap import named

    checkpoint = Checkpoint(STAGE, ITEM, config.recipe())
    with tempfile.TemporaryDirectory() as scratch, cost(STAGE, ITEM):
        fixer, text = untuned(config, layout.WEIGHTS, checkpoint, Path(scratch))
        if fixer.training_record.scenes:
            study = params.section("study", StudyConfig)
            measured = (*study.internal_eval_scenes, *study.downstream_scenes)
            scenes = dict.fromkeys((*study.reserved_scenes, *measured))
            fixer.training_record.refuse_overlap(
                "base.source", map(named, scenes), "reserved or measured"
            )
        with whole_folder(layout.base()) as folder:
            write_folder(fixer, folder, text)
            write_base_card(folder, fixer.spec, fixer.parameter_count(), fixer.training_record)
    forget(STAGE, ITEM)
    spec, count = fixer.spec, fixer.parameter_count() / 1e6
    seen = f"with a reference ({spec.reference_words})" if spec.reference else "without a reference"
    print(f"base: {spec.origin}, {count:.2f} M parameters, {seen}, prompt {spec.prompt!r}")
    for note in fixer.training_record.notes:
        print(f"note: {note}")


if __name__ == "__main__":
    launch(main)
