"""Pages from templates, escaped except for Markup: the only module that imports jinja2."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["Markup", "render_template"]


def render_template(folder: Path, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Render the page.html of a folder with the page.css and page.js beside it inlined."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    parts = {name: Markup((folder / f"page.{name}").read_text()) for name in ("css", "js")}
    return environment.get_template("page.html").render(**values, **parts)
