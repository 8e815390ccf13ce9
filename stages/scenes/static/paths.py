"""Where a static scene's photographs, shared folder and results lie."""

from dataclasses import dataclass
from pathlib import Path

from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import safe_name
from stages.scenes.static.shared_folder import SharedFolder


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
    ) -> "StaticPaths":
        """From a folder with `static/` in it, or from a name of the graph.

        `prep_root` is the shared folder itself, `<scene_dir>/static/shared` if none is given;
        results go to `result_root`/<scene>, results/static/<scene> if none is given.
        """
        if (scene_dir is None) == (scene is None):
            raise UserError("command line", "SCENE_DIR and --scene", expected="one of the two")
        if scene is not None:
            raw = layout.raw(scene) / "static"
            shared, results = layout.static_shared(scene), layout.static_results(scene)
            return cls(scene, raw, prep_root or shared, _under(result_root, scene) or results, True)
        assert scene_dir is not None, "one of the two is given"
        name = safe_name(scene_dir.resolve().name, scene_dir)
        raw, results = scene_dir / "static", layout.static_results(name)
        return cls(
            name, raw, prep_root or raw / "shared", _under(result_root, name) or results, False
        )

    def prepared(self) -> SharedFolder:
        """The prepared scene. Raises UserError when it is not whole; in the graph DVC knows."""
        found = SharedFolder(self.shared)
        if not self.in_graph:
            found.check_whole()
        return found


def _under(root: Path | None, name: str) -> Path | None:
    return root / name if root is not None else None
