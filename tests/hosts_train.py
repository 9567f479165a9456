"""`python tests/hosts_train.py SHARDS WORKDIR [seconds=S] [config.field=VALUE ...]`: training of the small system, one of many processes.

Each step takes S seconds longer, so that a test can meet it at work.
"""

import json
import sys
import time
from pathlib import Path

from small_system import SmallSystem
from small_train import small_config

from maskanim_jax import platform, train
from maskanim_jax.errors import exit_with_sentence


def main():
    shards, workdir, *fields = sys.argv[1:]
    settings, seconds = small_config(shards), 0.0
    for field in fields:
        name, _, value = field.partition("=")
        if name == "seconds":
            seconds = float(value)
            continue
        section, last = settings, name.split(".")
        for part in last[:-1]:
            section = section[part]
        section[last[-1]] = json.loads(value)
    platform.prepare(settings)
    train.build = lambda config: SmallSystem()
    one_step = train.one_step

    def slow_step(*arguments):
        time.sleep(seconds)
        return one_step(*arguments)

    train.one_step = slow_step
    train.train(settings, Path(workdir))


if __name__ == "__main__":
    exit_with_sentence(main)
