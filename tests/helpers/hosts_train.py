"""The small system trains in one of many processes; its arguments are SHARDS WORKDIR [hold=STEP,INDEX] [config.field=VALUE ...].

hold: process INDEX does not begin STEP, so that the others wait for it in the middle of theirs.
"""

import faulthandler
import json
import signal
import sys
import time
from pathlib import Path

import jax
from small_system import SmallSystem
from small_train import small_config

from maskanim_jax.distributed import setup
from maskanim_jax.errors import run_main
from maskanim_jax.training import experiment, loop


def main():
    shards, workdir, *fields = sys.argv[1:]
    settings, held = small_config(shards), None
    for field in fields:
        name, _, value = field.partition("=")
        if name == "hold":
            held = [int(number) for number in value.split(",")]
        else:
            section, last = name.rpartition(".")[::2]
            part = settings[section] if section else settings
            part[last] = json.loads(value)
    setup.configure_jax(settings)
    experiment.build = lambda config: SmallSystem()
    train_step = loop.train_step

    def held_step(run, state, *rest):
        if held == [int(state.step) + 1, jax.process_index()]:
            time.sleep(600)
        return train_step(run, state, *rest)

    loop.train_step = held_step
    loop.train(settings, Path(workdir))


def run():
    """All of a process."""
    faulthandler.register(signal.SIGUSR1)  # says where it waits, if a test should hang
    run_main(main)
