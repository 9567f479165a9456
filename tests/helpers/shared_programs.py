"""Programs that the runs of one file of tests share: a system and a step of the same settings are made, traced and compiled once."""

import contextlib
import importlib
import json

import pytest

from maskanim_jax.systems import SYSTEMS

WHOLE = ("seed", "train")
PARTS = {"optim": ("max_steps", "max_minutes", "patience"), "data": ("shards", "prefetch", "num_threads", "puppets")}
"""With WHOLE: fields that a run reads and no system."""


def _key(config):
    fields = json.loads(config.to_json_best_effort())
    for name in WHOLE:
        fields.pop(name, None)
    for section, names in PARTS.items():
        for name in names:
            fields.get(section, {}).pop(name, None)
    return json.dumps(fields, sort_keys=True)


@contextlib.contextmanager
def shared():
    """Within it, `build` returns one system for configs that differ only in WHOLE and PARTS, and the loop makes one step for it.

    Not for tests that change what a system computes behind its back: a program that was traced before would hide it.
    """
    from maskanim_jax.training import loop

    systems, steps, make_train_step = {}, {}, loop.make_train_step

    def building(build):
        def built(config):
            key = _key(config)
            if key not in systems:
                systems[key] = build(config.copy_and_resolve_references())
            return systems[key]

        return built

    def one_step_function(*arguments):
        if arguments not in steps:
            steps[arguments] = make_train_step(*arguments)
        return steps[arguments]

    with pytest.MonkeyPatch.context() as patched:
        for name in SYSTEMS:
            module = importlib.import_module(f"maskanim_jax.systems.{name}.system")
            patched.setattr(module, "build", building(module.build))
        patched.setattr(loop, "make_train_step", one_step_function)
        yield
