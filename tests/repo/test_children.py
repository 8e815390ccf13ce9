"""A run has one configuration: child processes read the params that the run has read."""

import ast

from source_tree import MODULES, imports, relative, tree

# Modules that start processes, and which ones.
STARTING = {
    "stages.jobs.experiment": "git, and copies of the files that it lists",
    "stages.jobs.git": "git",
    "stages.jobs.local": "tasks, through jobs.process",
    "stages.graph.pipeline": "a stage that places raw data and reads no params",
    "stages.jobs.task_process": "tasks, with the params that are recorded for them",
    "stages.jobs.slurm": "SLURM's commands",
    "stages.pages.report.origin": "git",
    "stages.run.process.parallel": "parts of a stage, with its params",
    "stages.run.process.processes": "the user's decoder of light fields",
    "stages.scenes.colmap_matching": "a query of COLMAP's database that reads no params",
    "stages.workspace.probes": "tools that describe a machine",
}
# Modules where the command of such a process names an entry.
NAMING = {
    "stages.difix.tuning.runs",
    "stages.jobs.slurm",
    "stages.splat.captures.results",
    "stages.splat.training.placement",
    "stages.workspace.probes",
    "stages.graph.repository",
}
# Modules below the entries that read params.yaml.
READING = {"stages.graph.pipeline", "stages.jobs.submit", "stages.workspace.project"}


def calls(module: str) -> list[str]:
    return [ast.unparse(node.func) for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]


def test_processes_are_started_in_listed_modules_only() -> None:
    ways = {"subprocess", "multiprocessing", "concurrent.futures.process", "torch.multiprocessing"}
    starting = {module for module in MODULES if imports(module) & ways}
    assert starting == set(STARTING)
    for module in MODULES:
        names = calls(module)
        bare = [name for name in names if name.startswith(("os.exec", "os.fork", "os.spawn"))]
        assert not [*bare, *(name for name in names if "ProcessPool" in name)], module


def test_parts_of_a_stage_are_started_with_its_params() -> None:
    """By `run_all`, which passes them on; a job's command starts a run of its own."""
    naming = {
        module
        for module in MODULES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.List)
        and any(ast.unparse(item) == "sys.executable" for item in node.elts)
        and any(isinstance(item, ast.Constant) and item.value == "-m" for item in node.elts)
    }
    assert naming == NAMING
    for module in NAMING - {"stages.jobs.slurm", *STARTING}:
        assert "subprocess" not in imports(module), relative(module)
    users = {module for module in MODULES if "run_all" in calls(module)}
    assert {
        "stages.difix.tuning.runs",
        "stages.splat.captures.results",
        "stages.splat.training.shares",
    } <= users


def test_libraries_take_their_config_as_argument() -> None:
    reading = {module for module in MODULES if "Params.read" in calls(module)}
    assert {module for module in reading if module.count(".") > 1} == READING


def test_an_entry_reads_params_once() -> None:
    """Between two readings the file may change."""
    for module in MODULES:
        if module.count(".") == 1 and module != "stages.overlay":  # reads the overlay too
            assert calls(module).count("Params.read") <= 1, relative(module)
