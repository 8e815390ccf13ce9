"""Where a static scene's images, shared folder and results lie."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stages.run.errors import UserError
from stages.run.files import safe_name
from stages.scenes.static.shared_folder import SharedFolder

FolderOf = Callable[[str], Path]  # by name of a scene


@dataclass(frozen=True)
class StaticPaths:
    """The folders of one scene; `in_graph` when DVC keeps them."""

    name: str
    raw: Path  # static/ of the scene
    shared: Path
    results: Path
    in_graph: bool

    @classmethod
    def of(
        cls,
        scene_dir: Path | None,
        scene: str | None,
        prep_root: Path | None = None,
        result_root: Path | None = None,
        *,
        raw: FolderOf,
        shared: FolderOf,
        results: FolderOf,
    ) -> "StaticPaths":
        """Resolve a folder with `static/` in it, or the name of a scene in the graph.

        Args:
            scene_dir: the former; its name is the scene's.
            scene: the latter; one of the two is given, else UserError is raised.
            prep_root: the shared folder itself; None for `<scene_dir>/static/shared` or `shared`.
            result_root: holds a folder of results per scene; None for `results`.
            raw: raw data of a scene in the graph.
            shared: shared folder of a scene in the graph.
            results: results of any scene.
        """
        if (scene_dir is None) == (scene is None):
            raise UserError("command line", "SCENE_DIR and --scene", expected="one of the two")
        if scene is not None:
            name, static, default = scene, raw(scene) / "static", shared(scene)
        else:
            assert scene_dir is not None, "one of the two is given"
            name = safe_name(scene_dir.resolve().name, scene_dir)
            static = scene_dir / "static"
            default = static / "shared"
        result = result_root / name if result_root is not None else results(name)
        return cls(name, static, prep_root or default, result, scene is not None)

    def prepared(self) -> SharedFolder:
        """The prepared scene. Outside the graph raises UserError when it is incomplete."""
        # In the graph DVC checks it.
        return SharedFolder(self.shared) if self.in_graph else SharedFolder.of(self.shared)
