"""How are HTML pages rendered? With the templates of `maskanim_jax/templates` and autoescaping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def rendered(template: str, content: dict[str, Any], **filters: Callable[..., str]) -> str:
    """Renders a template with `content`; `filters` are functions that it may call by name."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("maskanim_jax"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(content)
