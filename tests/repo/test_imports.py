"""Imports run one way, and each heavy package is imported in one place."""

import ast
from graphlib import TopologicalSorter

import pytest
from source_tree import ENTRIES, MODULES, ROOT, foreign, imports, relative, tree

# entries -> difix -> samples -> splat -> {scenes, quality} -> run; pages stands beside splat, and
# workspace is the repository itself. difix never imports splat.
MAY_IMPORT = {
    "run": {"run"},
    "graph": {"graph", "run"},
    "jobs": {"jobs", "graph", "run"},
    "scenes": {"scenes", "run"},
    "quality": {"quality", "run"},
    "splat": {"splat", "scenes", "quality", "run"},
    "samples": {"samples", "splat", "scenes", "quality", "run"},
    "difix": {"difix", "samples", "scenes", "quality", "run"},
    "pages": {"pages", "scenes", "quality", "run"},
    "workspace": {"workspace", "graph", "run"},
}
# Each room of splat imports itself and those before it; "" are the modules of splat itself.
SPLAT_ROOMS = ("cpu", "", "gpu", "training", "views", "captures", "viewing")
HOMES = {
    "pycolmap": "stages/scenes/colmap_import.py",
    "trimesh": "stages/scenes/demo/raytrace.py",
    "embreex": "stages/scenes/demo/raytrace.py",
    "skimage": "stages/scenes/demo/shapes/textures.py",
    "gsplat": "stages/splat/raster.py",
    "numba": "stages/splat/cpu/",
    "cuda": "stages/splat/gpu/compiled.py",
    "triton": ("stages/splat/gpu/", "stages/difix/gpu/"),
    "lpips": "stages/quality/metrics/lpips.py",
    "diffusers": "stages/difix/network/model.py",
    "accelerate": "stages/difix/tuning/finetune.py",
    "transformers": "stages/difix/network/text.py",
    "tqdm": "stages/run/progress.py",
    "viser": "stages/splat/viewing/viewer.py",
    "dvc": "stages/graph/",
    "vggt": "stages/splat/vggt.py",
    "rerun": "stages/splat/viewing/recording.py",
    "imageio_ffmpeg": "stages/scenes/formats/video.py",
    "dvclive": "stages/run/dvclive_folder.py",
    "jinja2": "stages/pages/template.py",
    "markdown_it": "stages/pages/report/page.py",
}
# `scenes` and `run` are what every stage and `check` load; networks come above them.
WITHOUT_TORCH = {"graph", "jobs", "scenes", "workspace", "pages"}


def package(module: str) -> str:
    """`scenes` for stages.scenes.demo.room, and no name for an entry."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (ROOT / "stages" / parts[-1]).is_dir() else ""


def room(module: str) -> str:
    """A module's folder below stages/scenes, or `scenes` for a module directly in it."""
    first = module.split(".")[2:3]
    return first[0] if first and (ROOT / "stages/scenes" / first[0]).is_dir() else "scenes"


LIBRARY = [module for module in MODULES if package(module) in MAY_IMPORT]


def test_every_package_has_its_place() -> None:
    packages = {
        path.name for path in (ROOT / "stages").iterdir() if (path / "__init__.py").exists()
    }
    assert packages == {*MAY_IMPORT, "commands"}


def splat_room(module: str) -> int:
    """Place of a module of splat among its rooms."""
    parts = module.split(".")
    return SPLAT_ROOMS.index(parts[2] if len(parts) > 3 else "")


@pytest.mark.parametrize("module", [name for name in LIBRARY if package(name) == "splat"])
def test_rooms_of_splat_import_one_way(module: str) -> None:
    own = {name for name in imports(module) if package(name) == "splat" and name in LIBRARY}
    wrong = sorted(name for name in own if splat_room(name) > splat_room(module))
    assert not wrong, f"{relative(module)} may not import {', '.join(wrong)}"


@pytest.mark.parametrize("module", LIBRARY)
def test_imports_run_one_way(module: str) -> None:
    own = {name for name in imports(module) if name.startswith("stages.")}
    wrong = sorted(name for name in own if package(name) not in MAY_IMPORT[package(module)])
    assert not wrong, f"{relative(module)} may not import {', '.join(wrong)}"


def test_rooms_of_scenes_import_one_way() -> None:
    """There is no cycle of imports between rooms."""
    graph: dict[str, set[str]] = {}
    for module in (name for name in LIBRARY if package(name) == "scenes"):
        rooms = {room(name) for name in imports(module) if package(name) == "scenes"}
        graph.setdefault(room(module), set()).update(rooms - {room(module)})
    TopologicalSorter(graph).prepare()  # CycleError names the rooms of a circle


@pytest.mark.parametrize("name", HOMES)
def test_heavy_package_is_imported_in_its_home_only(name: str) -> None:
    users = [relative(module) for module in MODULES if name in foreign(module)]
    strangers = [user for user in users if not user.startswith(HOMES[name])]
    assert not strangers, f"{name} belongs to {HOMES[name]}, not to {', '.join(strangers)}"


def test_lower_layers_do_without_torch() -> None:
    users = [relative(module) for module in LIBRARY if "torch" in foreign(module)]
    assert not [user for user in users if user.split("/")[1] in WITHOUT_TORCH]


@pytest.mark.parametrize("module", LIBRARY)
def test_config_is_light(module: str) -> None:
    if module.endswith(".config"):
        heavy = {"torch", "numpy", "scipy", "PIL", *HOMES} & foreign(module)
        assert not heavy, f"{relative(module)} imports {', '.join(heavy)}; `check` reads it"


def test_no_module_is_imported_by_a_computed_name() -> None:
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Name | ast.Attribute):
                name = node.id if isinstance(node, ast.Name) else node.attr
                assert name not in ("import_module", "__import__"), (
                    f"{relative(module)}:{node.lineno}: the deps of a stage cannot follow this"
                )


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_is_short_and_starts_by_launch(name: str) -> None:
    path = MODULES[f"stages.{name}"]
    lines = path.read_text().splitlines()
    assert len(lines) <= 80, f"{path.name}: {len(lines)} lines; move code to a package"
    assert lines[-2:] == ['if __name__ == "__main__":', "    launch(main)"]
    assert ast.get_docstring(tree(f"stages.{name}"))
