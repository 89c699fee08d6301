"""The MLP's forward pass in NumPy: for small networks a TensorFlow call costs ten times the arithmetic."""

from __future__ import annotations

import numpy as np

from hvd_dqn.agent.parameters import ParameterLayout


class NumpyMLP:
    """Computes the action values of a network that `build_network` made with kind "mlp"."""

    def __init__(self, layout: ParameterLayout, num_categories: int, observation_dtype: np.dtype) -> None:
        """Prepares for a layout of alternating kernels [in, out] and biases [out].

        Args:
          layout: the network's parameter layout.
          num_categories: values of a Discrete observation, 0 for others.
          observation_dtype: integer vectors are scaled from 0..255 to 0..1 as in the Keras model.
        """
        self._layout = layout
        self._num_categories = num_categories
        self._integer = np.issubdtype(observation_dtype, np.integer)
        self._layers: list[tuple[np.ndarray, np.ndarray]] = []

    def load(self, parameters: np.ndarray) -> None:
        """Takes the weights of a flat float32 vector [P]; views, not copies."""
        views = list(self._layout.views(parameters).values())
        self._layers = list(zip(views[0::2], views[1::2], strict=True))

    def action_values(self, s: np.ndarray) -> np.ndarray:
        """Computes Q-values.

        Args:
          s: observations [B, *observation_shape].

        Returns:
          float32 [B, A].
        """
        kernel, bias = self._layers[0]
        if self._num_categories:
            x = kernel[s] + bias  # [B, H]: a one-hot row times the kernel is a row of the kernel
        else:
            flat = s.reshape(len(s), -1)
            x = (flat.astype(np.float32) / np.float32(255.0) if self._integer else flat) @ kernel + bias  # [B, H]
        for kernel, bias in self._layers[1:]:
            x = np.maximum(x, 0.0) @ kernel + bias  # [B, H] and at last [B, A]
        return x
