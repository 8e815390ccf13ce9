"""Models declare what a result depends on; dvc.yaml and resume states follow them."""

import ast
import json
from collections.abc import Iterator
from typing import Any

import pytest
from param_reads import all_reads, reads
from source_tree import MODULES, ROOT, closure, imports, relative, tree
from test_deps import STAGES, definition, entry_of

from stages.check import SECTIONS
from stages.graph.pipeline import set_params
from stages.run.errors import UserError
from stages.run.files import text_hash
from stages.run.settings.edits import changes
from stages.run.settings.params import RUNTIME, Params, Section
from stages.run.settings.readings import parse_yaml
from stages.splat.config import StrategyConfig, TrainConfig, TrainRuntime
from stages.workspace.arms import current

PATH = ROOT / "params.yaml"
# Whose recipes a run's states are tied to, by the module that makes the Checkpoint.
TIED = {
    "stages.base": {"base"},
    "stages.pretrain": {"base"},
    "stages.tune": {"tune"},
    "stages.splat.captures.fixing": {"distill", "train"},
    "stages.splat.captures.training": {"train"},
    "stages.splat.views.fixed_views": {"distill", "train"},
    "stages.splat.training.timestamps": {"train"},
}


def runtime_keys() -> Iterator[tuple[str, ...]]:
    """Every key below `runtime:`, without `runtime` itself."""
    waiting = [(key,) for key in Params.read(PATH).raw[RUNTIME]]
    while waiting:
        keys = waiting.pop()
        node = at(Params.read(PATH).raw[RUNTIME], keys)
        if isinstance(node, dict):
            waiting += [(*keys, key) for key in node]
        else:
            yield keys


def at(node: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        node = node[key]
    return node


def makers() -> set[str]:
    """Modules that make a Checkpoint."""
    calls = {
        (name, ast.unparse(node.func))
        for name in MODULES
        if "stages.run.checkpoint" in imports(name)
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call)
    }
    return {name for name, function in calls if function == "Checkpoint"}


def test_no_stage_depends_on_runtime() -> None:
    for name in STAGES:
        listed = definition(name).get("params", [])
        assert not [key for key in listed if key.split(".")[0] == RUNTIME], name


def test_a_recipe_as_text_holds_its_keys_and_nothing_else() -> None:
    params = Params.read(PATH)
    for name, model in SECTIONS.items():
        section = params.section(name, model)
        stated = params.raw[name]
        assert list(json.loads(section.recipe())) == model.recipe_keys(), name
        assert set(model.recipe_keys()) == set(stated), name


@pytest.mark.parametrize("module", sorted(TIED))
def test_states_are_tied_to_all_that_their_stages_depend_on(module: str) -> None:
    stages = []
    for stage in STAGES:
        modules = closure(f"stages.{entry_of(stage)}")
        sections = {read.name for name in modules for read in reads(name) if not read.key}
        if module in modules and TIED[module] <= sections:  # else it only reads others' results
            assert TIED[module] <= set(definition(stage).get("params", [])), stage
            stages.append(stage)
    assert stages or module == "stages.pretrain", "no stage"


def test_every_module_that_makes_a_checkpoint_is_tied() -> None:
    assert makers() == set(TIED)


def test_only_listed_modules_dump_a_part_of_a_recipe() -> None:
    """Except for texts in files, whose format is fixed."""
    dumps = [
        f"{relative(module)}:{node.lineno}"
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") in ("model_dump", "model_dump_json")
        and {"exclude", "include"} & {keyword.arg for keyword in node.keywords}
    ]
    places = sorted(place.partition(":")[0] for place in dumps)
    assert places == ["stages/scenes/static/prepare.py", "stages/splat/config.py"]


def test_recipe_of_training_counts_every_key_but_its_runtime() -> None:
    usual = TrainConfig()
    quick = TrainConfig(runtime=TrainRuntime(workers=2, checkpoint_every=1))
    assert quick.fingerprint("cpu") == usual.fingerprint("cpu")
    other = [TrainConfig(warm_tolerance_db=2.0), TrainConfig(masks=True), TrainConfig(seed=1)]
    other.append(TrainConfig(execution="eager"))
    texts = {config.fingerprint("cpu") for config in (usual, *other)} | {usual.fingerprint("cuda")}
    assert len(texts) == 6


def test_hash_of_the_recipe_in_files_of_gaussians_is_stable() -> None:
    """Hashes of files from when `train:` contained its runtime."""
    other = TrainConfig(
        max_steps=80,
        warm_tolerance_db=2.0,
        execution="eager",
        strategy=StrategyConfig(kind="mcmc"),
        runtime=TrainRuntime(workers=3, checkpoint_every=7),
    )
    assert text_hash(TrainConfig().name_in_files("cpu"))[:16] == "facf6bef6649d379"
    assert text_hash(other.name_in_files("cuda"))[:16] == "7de2eb63d870f199"


@pytest.mark.parametrize("keys", runtime_keys(), ids=".".join)
def test_key_at_its_former_place_gets_a_hint(keys: tuple[str, ...], tmp_path) -> None:
    former, hint = ".".join(keys), f"it is {RUNTIME}.{'.'.join(keys)}"
    value = at(Params.read(PATH).raw[RUNTIME], keys)
    overlay: Any = value
    for key in reversed(keys):
        overlay = {key: overlay}
    copy = tmp_path / "params.yaml"
    copy.write_text(PATH.read_text())
    (tmp_path / "overlay.yaml").write_text(json.dumps(overlay))
    old = Params.read(PATH)
    at(old.raw, keys[:-1])[keys[-1]] = value

    def check() -> None:
        raise old.check((keys[0],), SECTIONS[keys[0]])[1][0]

    ways = (
        lambda: Params.read(PATH, [f"{former}=1"]),
        lambda: changes(Params.read(PATH), Params.read(tmp_path / "overlay.yaml")),
        lambda: current(Params.read(PATH), former),
        lambda: set_params(tmp_path, [f"{former}=1"]),
        check,
    )
    for way in ways:
        with pytest.raises(UserError) as caught:
            way()
        assert hint in str(caught.value)


def test_runtime_is_built_with_its_section_and_refused_inside_it() -> None:
    params = Params.read(
        PATH, ["runtime.train.workers=2", "runtime.base.pretrain.checkpoint_every=7"]
    )
    train = params.section("train", SECTIONS["train"])
    assert train.runtime.workers == 2
    assert params.section("base", SECTIONS["base"]).pretraining.runtime.checkpoint_every == 7
    assert params.overridden_keys("train") == {"runtime.workers"}
    assert list(params.unread()) == []
    assert list(params.unread(train=("seed",))) != []

    wrong = Params.read(PATH)
    wrong.raw[RUNTIME]["train"]["worker"] = 1
    (error,) = wrong.check(("train",), SECTIONS["train"])[1]
    assert "runtime.train.worker" in str(error)
    assert "did you mean workers?" in str(error)
    wrong.raw["train"][RUNTIME] = {"workers": 1}
    (error,) = wrong.check(("train",), SECTIONS["train"])[1]
    assert "it belongs in runtime.train" in str(error)
    wrong.raw[RUNTIME]["prepare"] = {}
    assert any("runtime.prepare" in str(error) for error in wrong.check_all(SECTIONS, {})[1])


def test_no_section_is_read_that_has_the_runtime_of_another() -> None:
    """`runtime:` is read with the recipe that it belongs to, and never alone."""
    assert [read.place for read in all_reads() if read.name == RUNTIME] == []
    aside = {model.runtime_model() for model in SECTIONS.values()} - {None}
    assert all(issubclass(model, Section) for model in aside)
    assert parse_yaml(PATH.read_text())[RUNTIME]
