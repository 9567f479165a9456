"""A system that compiles in a second: one conv, batch norm and noise from the key. For tests of the loop around a system."""

import jax
import jax.numpy as jnp
import optax

from maskanim_jax.nn.functional import FunctionalModule
from maskanim_jax.nn.layers import BatchNorm
from maskanim_jax.systems.interface import Gradients, Variables


class SmallSystem:
    """Recolours the source into the driving frame; `batch_norm=False`: plain least squares on what the pixels are."""

    name, result, mask_output = "small", "answer", None
    output_names = ("source", "driving", "answer")
    frame_size = 32

    def __init__(self, batch_norm=True):
        self.batch_norm = FunctionalModule(lambda rngs: BatchNorm(3)) if batch_norm else None

    def __eq__(self, other):
        """All are alike, so that JAX compiles once for all of them."""
        return type(self) is type(other) and (self.batch_norm is None) == (other.batch_norm is None)

    def __hash__(self):
        return hash((type(self), self.batch_norm is None))

    def init(self, key):
        norm, stats = self.batch_norm.init(key) if self.batch_norm else ({}, {})
        kernel = jax.random.normal(key, (3, 3, 3, 3)) / 9
        return Variables({"conv": kernel, "norm": norm}, {"norm": stats})

    def optimizer(self, steps_per_epoch):
        return optax.sgd(0.1)

    def learning_rates(self, step, steps_per_epoch):
        return {"conv": 0.1}

    def _answer(self, params, stats, frames, train):
        seen = jax.lax.conv_general_dilated(
            frames, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if self.batch_norm is None:
            return seen, stats
        seen, norm = self.batch_norm(params["norm"], stats["norm"], seen, train=train)
        return seen, {"norm": norm}

    def gradients(self, variables, frozen, source, driving, key, step, steps_per_epoch):
        if self.batch_norm is not None:
            source = source + 0.1 * jax.random.normal(key, source.shape)

        def loss(params):
            answer, stats = self._answer(params, variables.stats, source, True)
            return jnp.square(answer - driving).mean(), stats

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(variables.params)
        return Gradients(grads, stats, {"loss": value})

    def reconstruct(self, variables, source, driving):
        answer = self._answer(variables.params, variables.stats, source, False)[0]
        return {"source": source, "driving": driving, "answer": answer}

    def outputs(self, variables, source, driving, key):
        return self.reconstruct(variables, source, driving)

    def animation_options(self, given):
        return ()

    def encode_source(self, variables, source, first_driving):
        return source

    def animate(self, variables, source_state, driving, options):
        return self.reconstruct(variables, source_state + 0 * driving, driving)

    def collapse_warnings(self, metrics):
        return []

    def paper_deviations(self):
        return []
