"""Each stage of dvc.yaml depends on the digest of its code and exactly the params it reads."""

import ast
import shlex
import sys
from importlib import metadata

import pytest
from param_reads import MADE, reads, wanted_params
from ruamel.yaml import YAML
from source_tree import ENTRIES, MODULES, ROOT, closure, foreign, imports, relative, tree

from stages.run import digests

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def definition(name: str) -> dict:
    """A stage's definition, below `do` if it has `foreach`."""
    return STAGES[name].get("do", STAGES[name])


def entry_of(name: str) -> str:
    """`train` for a stage whose command is `python -m stages.train ...`."""
    words = shlex.split(definition(name)["cmd"])
    assert words[:2] == ["python", "-m"], f"{name}: {words}"
    module = words[2]
    if module not in MODULES:
        pytest.fail(f"dvc.yaml, stage {name}: {module} does not exist")
    return module.removeprefix("stages.")


def as_yaml(items: list[str]) -> str:
    """A list as written in dvc.yaml."""
    return "\n".join(f"    - {item}" for item in items)


# What a stage may import without a pin in requirements.lock: users install it by hand.
UNPINNED = {"vggt", "rerun"}


@pytest.mark.parametrize("name", sorted({*STAGES} - {digests.STAGE}))
def test_stage_depends_on_the_digest_of_its_code(name: str) -> None:
    listed = definition(name)["deps"]
    wanted = digests.path_of(entry_of(name)).as_posix()
    code = [dep for dep in listed if dep.startswith(("stages", "data/code"))]
    assert code == [wanted], f"dvc.yaml, stage {name}: deps must hold {wanted}, and no code beside"
    assert len(listed) == len(set(listed))


def test_code_writes_the_digest_of_every_stage() -> None:
    code = STAGES[digests.STAGE]
    entries = {entry_of(name) for name in STAGES} - {digests.STAGE}
    assert digests.entries(ROOT) == sorted(entries), "it reads dvc.yaml by lines"
    wanted = sorted(digests.path_of(entry).as_posix() for entry in entries)
    assert code["outs"] == wanted, f"dvc.yaml, stage code:\n    outs:\n{as_yaml(wanted)}"
    assert sorted(code["deps"]) == [digests.LOCK.as_posix(), "stages"]


def test_packages_of_stages_are_pinned() -> None:
    """Otherwise the digests lack their versions, and updating them reruns nothing."""
    pinned = digests.pins((ROOT / digests.LOCK).read_text())
    modules = set().union(*(closure(f"stages.{entry}") for entry in digests.entries(ROOT)))
    names = set().union(*map(foreign, modules)) - sys.stdlib_module_names - UNPINNED
    for name in names:
        package = digests.INSTALLED_AS.get(name, name)
        assert digests.normal(package) in pinned, f"{name}: add it to INSTALLED_AS"
        installed = {digests.normal(package) for package in metadata.packages_distributions()[name]}
        assert digests.normal(package) in installed, f"{name} is installed by {installed}"


def test_data_in_packages_is_sought_by_file() -> None:
    """A module that reads `__file__` depends on its folder's files; other ways are not detected."""
    for module in MODULES:
        ways = imports(module) & {"importlib.resources", "pkgutil", "pkg_resources"}
        assert not ways, f"{relative(module)}: {ways}"
        names = {node.id for node in ast.walk(tree(module)) if isinstance(node, ast.Name)}
        assert "__spec__" not in names, relative(module)


@pytest.mark.parametrize("name", STAGES)
def test_params_are_those_that_the_code_reads(name: str) -> None:
    listed = definition(name).get("params", [])
    wanted = wanted_params(entry_of(name))
    assert sorted(listed) == wanted, (
        f"dvc.yaml, stage {name}: params must be\n    params:\n{as_yaml(wanted)}"
    )


@pytest.mark.parametrize("section", MADE)
def test_stages_of_one_item_do_not_read_the_list(section: str) -> None:
    """These stages do not depend on the list, so their code must not read it."""
    _, its_list = MADE[section]
    modules = closure(f"stages.{section}")
    readers = [
        f"{relative(module)}:{node.lineno}"
        for module in modules
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute)
        and node.attr == its_list
        and getattr(node.value, "id", "") in ("config", section)
    ]
    assert readers == []
    assert any(read.name == section for module in modules for read in reads(module))


def test_entries_of_the_pipeline_are_those_beside_the_commands() -> None:
    pipeline = {name for name in ENTRIES if MODULES[f"stages.{name}"].parent.name == "stages"}
    assert {entry_of(name) for name in STAGES} == pipeline
