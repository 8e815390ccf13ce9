"""DVC's settings of this repository, at all levels, without the cost of opening it."""

from dataclasses import dataclass
from pathlib import Path

from dvc.config import Config, ConfigError

from stages.run.errors import UserError


@dataclass(frozen=True)
class Settings:
    """DVC's settings that matter to checks and plans."""

    cache: Path
    link_types: tuple[str, ...]
    remotes: dict[str, str]  # addresses by name
    default_remote: str | None
    hardlink_lock: bool
    shared: str | None
    with_read_timeout: frozenset[str] = frozenset()  # names of remotes


def read_settings(root: Path = Path()) -> Settings | None:
    """Settings, or None where there is no DVC repository. Raises UserError for broken ones."""
    folder = (root / ".dvc").absolute()
    if not folder.is_dir():
        return None
    try:
        config = Config(dvc_dir=str(folder))
    except ConfigError as error:
        raise UserError(folder, str(error), fix="edit .dvc/config or .dvc/config.local") from error
    cache, core = config.get("cache", {}), config.get("core", {})
    types = cache.get("type") or ("reflink", "copy")
    return Settings(
        Path(cache.get("dir") or folder / "cache"),
        tuple(types if not isinstance(types, str) else types.split(",")),
        {name: one.get("url", "") for name, one in config.get("remote", {}).items()},
        core.get("remote"),
        bool(core.get("hardlink_lock")),
        cache.get("shared"),
        frozenset(
            name for name, one in config.get("remote", {}).items() if one.get("read_timeout")
        ),
    )
