"""How is a TFLite file run? With LiteRT, one frame at a time, on one thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskanim_jax.errors import UserError


class Model:
    """One network: an input (1, H, W, 3) float32, outputs in the file's order."""

    def __init__(self, path: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise UserError(
                f"{path.name} needs LiteRT: install the extra `metrics` (pip install 'maskanim_jax[metrics]')"
            ) from error
        self._interpreter = Interpreter(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        (given,) = self._interpreter.get_input_details()
        self._input = given["index"]
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]
        self.size = int(given["shape"][1])
        """Side of the square input."""

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        """Runs (size, size, 3) and returns the outputs without their batch axis."""
        self._interpreter.set_tensor(self._input, picture[None].astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]
