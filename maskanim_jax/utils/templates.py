"""How does a page get its content? The templates of `maskanim_jax/templates`, with everything escaped that they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def rendered(template: str, content: dict[str, Any], **filters: Callable[..., str]) -> str:
    """The text of a template with its content; `filters` are functions that it may call on values, by name."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("maskanim_jax"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(content)
