"""Each stage of dvc.yaml depends on exactly the code that it imports and the params it reads."""

import shlex

import pytest
from param_reads import wanted_params
from ruamel.yaml import YAML
from source_tree import ENTRIES, MODULES, ROOT, code_files

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
# Entries that are commands of their own and no stages.
COMMANDS = {
    *("ablate", "check", "doctor", "job", "kernels"),
    *("overlay", "plan", "pretrain", "save", "submit", "view"),
}


def definition(name: str) -> dict:
    """A stage as it is written, below `do` where it has `foreach`."""
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
    """A list as it stands in dvc.yaml."""
    return "\n".join(f"    - {item}" for item in items)


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_import_closure(name: str) -> None:
    listed = definition(name)["deps"]
    code = [dep for dep in listed if dep.startswith("stages/")]
    wanted = code_files(f"stages.{entry_of(name)}")
    missing, superfluous = sorted(set(wanted) - set(code)), sorted(set(code) - set(wanted))
    data = [dep for dep in listed if dep not in code]
    assert (missing, superfluous) == ([], []), (
        f"dvc.yaml, stage {name}: missing {missing}, superfluous {superfluous}\n"
        f"    deps:\n{as_yaml([*data, *wanted])}"
    )
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("name", STAGES)
def test_params_are_those_that_the_code_reads(name: str) -> None:
    listed = definition(name).get("params", [])
    wanted = wanted_params(entry_of(name))
    assert sorted(listed) == wanted, (
        f"dvc.yaml, stage {name}: params must be\n    params:\n{as_yaml(wanted)}"
    )


def test_every_entry_is_a_stage_or_a_command() -> None:
    assert {entry_of(name) for name in STAGES} | COMMANDS == set(ENTRIES)
