"""A run has one configuration: what it starts reads the params that it has read."""

import ast

from source_tree import MODULES, imports, relative, tree

# Modules that start processes, and what these are.
STARTING = {
    "stages.jobs.experiment": "git, and copies of what it tells",
    "stages.jobs.git": "git",
    "stages.jobs.local": "tasks, through jobs.process",
    "stages.jobs.pipeline": "a stage that lays raw data, which reads no params",
    "stages.jobs.task_process": "tasks, which are handed what is recorded of them",
    "stages.jobs.slurm": "SLURM's commands",
    "stages.pages.report.origin": "git",
    "stages.run.process.parallel": "parts of a stage, which are handed its params",
    "stages.scenes.static.light_field.lightfield": "a decoder of the user's",
    "stages.workspace.probes": "what a machine has",
    "stages.workspace.repository": "experiments, each with a copy of the params",
}
# Where the command of such a process names one of our entries.
NAMING = {
    "stages.difix.tuning.runs",
    "stages.jobs.slurm",
    "stages.splat.captures.results",
    "stages.splat.training.placement",
    "stages.workspace.probes",
    "stages.workspace.repository",
}
# Modules below the entries that read params.yaml.
READING = {"stages.jobs.pipeline", "stages.jobs.submit", "stages.workspace.project"}


def calls(module: str) -> list[str]:
    return [ast.unparse(one.func) for one in ast.walk(tree(module)) if isinstance(one, ast.Call)]


def test_processes_are_started_where_it_is_known_what_they_read() -> None:
    ways = {"subprocess", "multiprocessing", "concurrent.futures.process", "torch.multiprocessing"}
    starting = {module for module in MODULES if imports(module) & ways}
    assert starting == set(STARTING)
    for module in MODULES:
        bare = [one for one in calls(module) if one.startswith(("os.exec", "os.fork", "os.spawn"))]
        assert not [*bare, *(one for one in calls(module) if "ProcessPool" in one)], module


def test_parts_of_a_stage_are_started_with_its_params() -> None:
    """By `run_all`, which hands them down; a job's own command is the start of a run."""
    found = {
        module
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.List)
        and any(ast.unparse(one) == "sys.executable" for one in node.elts)
        and any(isinstance(one, ast.Constant) and one.value == "-m" for one in node.elts)
    }
    assert found == NAMING
    for module in NAMING - {"stages.jobs.slurm", *STARTING}:
        assert "subprocess" not in imports(module), relative(module)
    users = {module for module in MODULES if "run_all" in calls(module)}
    assert {
        "stages.difix.tuning.runs",
        "stages.splat.captures.results",
        "stages.train",
    } <= users


def test_libraries_are_given_their_config() -> None:
    reading = {module for module in MODULES if "Params.read" in calls(module)}
    assert {one for one in reading if one.count(".") > 1} == READING


def test_an_entry_reads_params_once() -> None:
    """Two readings may be of two files."""
    for module in MODULES:
        if module.count(".") == 1 and module != "stages.overlay":  # reads the overlay too
            assert calls(module).count("Params.read") <= 1, relative(module)
