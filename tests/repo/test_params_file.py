"""params.yaml: every section has a model, every key is read, DVC can rewrite it unharmed."""

import ast
import difflib
import io
import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from param_reads import all_reads, misnamed_sections, wanted_params
from ruamel.yaml import YAML
from source_tree import MODULES, ROOT, closure, tree

from stages.check import CATALOGUES, SECTIONS
from stages.jobs.config import SlurmConfig
from stages.run.settings.params import RUNTIME, Params, Section
from stages.scenes.static.config import READ_BY

MODELS = SECTIONS | CATALOGUES
TEXT = (ROOT / "params.yaml").read_text()
# Lists that dvc.yaml alone fans out over are read there.
GRAPH = (ROOT / "dvc.yaml").read_text()


def nested(model: type[Section]) -> list[type[Section]]:
    """The model and every section inside it."""
    models = [model]
    for field in model.model_fields.values():
        waiting = [field.annotation]
        while waiting:
            kind = waiting.pop()
            if isinstance(kind, type) and issubclass(kind, Section):
                models += nested(kind)
            elif not isinstance(kind, type) or isinstance(kind, types.GenericAlias):
                waiting += getattr(kind, "__args__", ())
    return models


def names_used(module: str) -> set[str]:
    """Names that code takes from an object: after a dot, or as text for `getattr`.

    A config module declares and checks keys; only what its methods read from `self` counts as use.
    """
    nodes = list(_nodes_but_validators(tree(module)))
    dotted = [node for node in nodes if isinstance(node, ast.Attribute)]
    if module.endswith((".config", ".study")):
        return {node.attr for node in dotted if ast.unparse(node.value) == "self"}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return {node.attr for node in dotted} | {text for text in texts if isinstance(text, str)}


def _nodes_but_validators(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        decorators = [ast.unparse(item) for item in getattr(child, "decorator_list", [])]
        if not any("validator" in decorator for decorator in decorators):
            yield child
            yield from _nodes_but_validators(child)


def test_key_that_is_only_declared_or_checked_counts_as_unread() -> None:
    assert "prune_opac" not in names_used("stages.splat.config")
    assert "reset_every" not in names_used("stages.splat.config"), "`inert` only talks about it"
    assert "max_steps" in names_used("stages.splat.config"), "TrainConfig.steps takes it"


@pytest.mark.parametrize("name", MODELS)
def test_every_key_is_read(name: str) -> None:
    model = MODELS[name]
    readers = {read.place.partition(":")[0] for read in all_reads() if read.name == name}
    assert readers or f"${{{name}." in GRAPH, f"no stage reads `{name}:`"
    entries = {
        Path(path).stem for path in readers if Path(path).parent.name in ("stages", "commands")
    }
    # `check` alone reads the memo, and reports values without effect.
    modules = set().union(*(closure(f"stages.{entry}") for entry in {*entries, "check"}))
    used = set().union(*map(names_used, modules))
    for section in nested(model):
        unread = sorted(set(section.recipe_keys()) - used)
        assert not unread, f"{section.__name__}: nothing reads {', '.join(unread)}"


def test_sections_are_those_with_a_model() -> None:
    raw = Params.read(ROOT / "params.yaml").raw
    assert set(raw) == {*MODELS, RUNTIME}
    assert set(raw[RUNTIME]) == {name for name in SECTIONS if SECTIONS[name].runtime_model()}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_is_stated(name: str) -> None:
    """params.yaml states every value in force; no default is hidden."""
    raw = Params.read(ROOT / "params.yaml").raw

    def compare(model: type[Section], stated: dict, where: str) -> None:
        missing = sorted(set(model.recipe_keys()) - set(stated))
        assert not missing, f"params.yaml, {where}: add {', '.join(missing)}"
        for key in model.recipe_keys():
            kind = model.model_fields[key].annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                compare(kind, stated[key], f"{where}.{key}")

    compare(SECTIONS[name], raw[name], name)
    if (runtime := SECTIONS[name].runtime_model()) is not None:
        compare(runtime, raw[RUNTIME][name], f"{RUNTIME}.{name}")


def test_stages_read_a_section_by_the_model_that_check_knows() -> None:
    for read in all_reads():
        if read.method != "names":
            assert read.model == MODELS[read.name].__name__, read.place


def test_sections_read_by_key_are_held_in_a_variable_of_their_name() -> None:
    assert [place for module in MODULES for place in misnamed_sections(module)] == []


def test_file_is_as_dvc_writes_it() -> None:
    """`dvc exp run -S` dumps the whole file; its diff must show only the changed values."""
    yaml, written = YAML(), io.StringIO()
    yaml.default_flow_style = False
    yaml.dump(yaml.load(TEXT), written)
    assert written.getvalue() == TEXT


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that `-S` can set, by its dotted key; a list is one value."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


VALUES = dict(leaves(YAML(typ="safe").load(TEXT)))
LISTS = [key for key, value in VALUES.items() if isinstance(value, list)]
# Texts that may take several lines.
WRAPPED = [key for key, value in VALUES.items() if isinstance(value, str) and len(value) > 60]


def overridden(folder: Path, **values: Any) -> str:
    """params.yaml after DVC's own `-S key=value ...`; keys have dots."""
    from dvc.utils.hydra import apply_overrides

    path = folder / "params.yaml"
    path.write_text(TEXT)
    apply_overrides(path, [f"{key}={json.dumps(value)}" for key, value in values.items()])
    return path.read_text()


def changed_lines(text: str) -> tuple[list[str], list[str]]:
    """Lines of params.yaml that a text lacks, and those that it has instead; both stripped."""
    marks = list(difflib.ndiff(TEXT.splitlines(), text.splitlines()))
    return tuple([line[2:].strip() for line in marks if line[0] == mark] for mark in "-+")


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else "other"


def test_override_changes_the_lines_of_its_key_alone(tmp_path: Path) -> None:
    values = {key: other(VALUES[key]) for key in VALUES.keys() - {*LISTS, *WRAPPED}}
    gone, new = changed_lines(overridden(tmp_path, **values))
    names = sorted(key.rpartition(".")[2] for key in values)
    assert len(names) > 300
    assert sorted(line.partition(":")[0] for line in gone) == names
    assert sorted(line.partition(":")[0] for line in new) == names


@pytest.mark.parametrize("key", WRAPPED)
def test_override_of_a_long_text_changes_its_lines_alone(key: str, tmp_path: Path) -> None:
    gone, new = changed_lines(overridden(tmp_path, **{key: "other"}))
    assert [line for line in gone if line.startswith("#")] == []
    assert new == [f"{key.rpartition('.')[2]}: other"]


@pytest.mark.parametrize("key", LISTS)
def test_override_of_a_list_changes_its_items_alone(key: str, tmp_path: Path) -> None:
    """DVC drops every comment between a list and the next key: none may stand there."""
    before, name = VALUES[key], key.rpartition(".")[2]
    gone, new = changed_lines(overridden(tmp_path, **{key: ["other"]}))
    assert {line[0] for line in [*gone, *new] if not line.startswith(f"{name}:")} == {"-"}
    gone, new = changed_lines(overridden(tmp_path, **{key: []}))
    assert len(gone) == (1 + len(before) if before else 0)
    assert not any(line.startswith("#") for line in gone)
    assert new == ([f"{name}: []"] if before else [])


def test_no_comment_shares_a_line_with_a_value() -> None:
    """`-S key=[]` corrupts a list with a comment behind its key."""
    shared = [line for line in TEXT.splitlines() if " #" in line.strip() and line.strip()[0] != "#"]
    assert shared == []


@pytest.mark.parametrize("name", MODELS)
def test_every_section_is_introduced_by_a_comment(name: str) -> None:
    lines = TEXT.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith(f"{name}:"))
    assert lines[at - 1].startswith("# ")


def test_every_stage_that_can_use_a_gpu_says_how_many_its_job_asks_for() -> None:
    """A job without one works on the CPU, in silence."""
    on_gpu = {"stages.splat.raster", "stages.splat.matching", "stages.difix.network.precision"}
    asked = Params.read(ROOT / "params.yaml").section("slurm", SlurmConfig).stages
    commands = {
        name: str(stage.get("cmd") or stage["do"]["cmd"])
        for name, stage in YAML(typ="safe").load(GRAPH)["stages"].items()
    }
    entries = {name: re.search(r"python -m (stages\.\w+)", text) for name, text in commands.items()}
    using = {name for name, found in entries.items() if found and closure(found[1]) & on_gpu}
    assert {"train", "show", "calibrate", "base"} <= using
    assert not [name for name in using if name not in asked or asked[name].gpus is None]


@pytest.mark.parametrize("command", READ_BY)
def test_keys_that_a_static_command_reads_are_its_params(command: str) -> None:
    """Overrides of other keys are reported to have no effect."""
    listed = {key.partition(".")[2] for key in wanted_params(command) if key.startswith("static.")}
    shared = {key for name in READ_BY if name != command for key in READ_BY[name]}
    recipe = {key for key in READ_BY[command] if not key.startswith(f"{RUNTIME}.")}
    assert recipe <= listed
    assert listed - set(READ_BY[command]) <= shared, "read by no command, or missing in READ_BY"
