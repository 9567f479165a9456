"""Which controls does the demo page show? One for each option of the chosen checkpoint's system."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from maskanim_jax.systems import SYSTEMS

if TYPE_CHECKING:
    from maskanim_jax.animation.animator import Animator

SLIDERS = {"threshold": (0.0, 255.0, 1.0), "mask_scale": (0.25, 2.0, 0.05), "smooth": (0.0, 0.95, 0.05)}
"""(low, high, step) of numeric options."""
WORDS = {"threshold": "median"}
"""A word that can replace the number; shown as a checkbox beside the slider."""
CHOICES = {"motion": "MOTIONS", "ablation": "ABLATIONS"}
"""The name, in the system's `options.py`, of the list of possible values."""
MEASURED_FROM_A_FRAME = "motion"
"""Systems with this option support another first frame."""


@dataclass(frozen=True)
class Control:
    """One option.

    `parts` are its Gradio components: the slider (or box, or field), and perhaps
    the checkbox for its word.
    """

    name: str
    parts: tuple[Any, ...]

    def text(self, values: Sequence[Any]) -> str | None:
        """The option as on the command line, from the values of `parts`; None for an empty field,
        which means the default.
        """
        value = values[0]
        if len(values) > 1 and values[1]:
            return WORDS[self.name]
        if isinstance(value, bool):
            return str(value).lower()
        return None if value is None or str(value).strip() == "" else str(value).strip()

    def shown(self, value: Any, visible: bool) -> list[Any]:
        """Updates of `parts` that show `value`
        (in the form of `animation_options`) or hide them.
        """
        word = value == WORDS.get(self.name, ...)
        if self.name in SLIDERS:
            updates = [gr.update(visible=visible, **({} if word or value is None else {"value": value}))]
        else:
            updates = [gr.update(visible=visible, **({} if value is None else {"value": value}))]
        return updates + [gr.update(visible=visible, value=word)] * (len(self.parts) - 1)


def flags(system: str) -> Mapping[str, str]:
    """The options of a system by name, with their help texts."""
    return _module(system).FLAGS


def controls() -> dict[str, Control]:
    """A hidden control for every option of every system; call it inside `gr.Blocks`.

    Options of unknown kinds are text fields.
    """
    made: dict[str, Control] = {}
    for system in SYSTEMS:
        for name, help_text in flags(system).items():
            if name not in made:
                made[name] = Control(name, _parts(name, help_text, _module(system)))
    return made


def for_animator(animator: Animator, known: Mapping[str, Control]) -> list[Any]:
    """Updates of the parts of all controls, in order: the animator's options show their
    defaults, the others are hidden.
    """
    names = flags(animator.run.config.system)
    defaults = animator.run.system.animation_options({})
    return [
        update
        for name, control in known.items()
        for update in control.shown(getattr(defaults, name, None) if name in names else None, name in names)
    ]


def _module(system: str) -> Any:
    return importlib.import_module(f"maskanim_jax.systems.{system}.options")


def _parts(name: str, help_text: str, module: Any) -> tuple[Any, ...]:
    label = name.replace("_", " ")
    common: dict[str, Any] = {"info": help_text, "visible": False, "elem_id": f"option-{name}"}
    if name in SLIDERS:
        low, high, step = SLIDERS[name]
        slider = gr.Slider(low, high, step=step, label=label, **common)
        if name not in WORDS:
            return (slider,)
        word = WORDS[name]
        return (slider, gr.Checkbox(label=f"{label}: {word}", visible=False, elem_id=f"option-{name}-{word}"))
    if name in CHOICES:
        values = list(getattr(module, CHOICES[name]))
        return (gr.Radio(values, value=values[0], label=label, **common),)
    default = getattr(module.AnimationOptions, name, None)
    if isinstance(default, bool):
        return (gr.Checkbox(default, label=label, **common),)
    return (gr.Textbox(label=label, **common),)
