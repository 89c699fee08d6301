"""The Nature CNN in one compiled call per pass: convolutions as products of patches, before an MLP."""

from __future__ import annotations

import ctypes

import numpy as np

from hvd_dqn.agent.compiled_mlp import CompiledActivations, CompiledMLP
from hvd_dqn.agent.compiled_structs import ConvolutionStruct, TorsoPassStruct, TorsoStruct
from hvd_dqn.agent.networks import NATURE_CONVOLUTIONS, has_channels_first, image_sides
from hvd_dqn.agent.numpy_mlp import Rows
from hvd_dqn.agent.parameters import ParameterLayout
from hvd_dqn.maths.kernels import address, aligned_zeros

_IMAGES_AT_ONCE = 8
"""Of a forward pass that no backward pass follows: as many as stay in a core's cache between two convolutions."""


class CNNActivations(CompiledActivations):
    """What a CNN's passes leave behind: an MLP's memory, and the convolutions'."""

    def __init__(
        self,
        rows: int,
        widths: list[int],
        deepest: int,
        panel_width: int,
        *,
        torso_rows: int,
        image_floats: int,
        outputs: list[int],
        patch_floats: int,
        backward: bool,
    ) -> None:
        """Takes memory.

        Args:
          rows: see `CompiledActivations`.
          widths: see `CompiledActivations`.
          deepest: see `CompiledActivations`.
          panel_width: see `CompiledActivations`.
          torso_rows: images that go through the convolutions at once.
          image_floats: of one image.
          outputs: floats per image that each convolution puts out.
          patch_floats: of the patches of the images that the largest convolution takes at once.
          backward: whether backward passes follow.
        """
        super().__init__(rows, widths, deepest, panel_width)
        features = np.empty((rows, outputs[-1] + 1), np.float32)
        images, patches = aligned_zeros(image_floats), aligned_zeros(patch_floats)
        values = [aligned_zeros(torso_rows * floats) for floats in outputs]
        self._torso_memory = [features, images, patches, *values]
        self._torso_values_at = np.array([address(array) for array in values], np.uintp)
        self.struct.torso = TorsoPassStruct(torso_rows, address(images), address(patches))
        self.struct.torso.values, self.struct.features = self._torso_values_at.ctypes.data, address(features)
        if backward:
            feature_gradients, patch_gradients = np.empty_like(features), aligned_zeros(patch_floats)
            gradients = [aligned_zeros(array.size) for array in values]
            self._torso_memory += [feature_gradients, patch_gradients, *gradients]
            self._torso_gradients_at = np.array([address(array) for array in gradients], np.uintp)
            self.struct.torso.patch_gradients = address(patch_gradients)
            self.struct.torso.gradients = self._torso_gradients_at.ctypes.data
            self.struct.feature_gradients = address(feature_gradients)


class CompiledCNN(CompiledMLP):
    """A `CompiledMLP` whose inputs are the features that convolutions find in images."""

    rows_at_once = 128

    def __init__(
        self,
        kernels: ctypes.CDLL,
        layout: ParameterLayout,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype,
    ) -> None:
        """Prepares for a network that `build_network` made with kind "cnn".

        Args:
          kernels: from `load_kernels`, which support products on this processor.
          layout: the network's parameter layout.
          observation_shape: of one image.
          observation_dtype: of an image; integers are scaled from 0..255 to 0..1 as in the Keras model.
        """
        depth = len(NATURE_CONVOLUTIONS)
        super().__init__(kernels, layout, 0, observation_dtype, first_layer=depth)
        self._channels_first = has_channels_first(observation_shape)
        *sides, channels = image_sides(observation_shape)
        self._image_floats = sides[0] * sides[1] * channels
        self._convolutions = (ConvolutionStruct * depth)()
        self._outputs = []
        for own, (filters, size, stride) in zip(self._convolutions, NATURE_CONVOLUTIONS, strict=True):
            own.height, own.width, own.channels = *sides, channels
            own.size, own.stride, own.filters = size, stride, filters
            sides, channels = [(side - size) // stride + 1 for side in sides], filters
            self._outputs.append(sides[0] * sides[1] * channels)
        self._pixel = np.dtype(np.uint8 if observation_dtype == np.uint8 else np.float32)
        self._torso = TorsoStruct(
            ctypes.addressof(self._convolutions),
            depth,
            sum(layout.sizes[: 2 * depth]),
            self._pixel.itemsize,
            self._scale,
        )
        self._struct.row_bytes = self._image_floats * self._pixel.itemsize
        self._struct.torso = ctypes.addressof(self._torso)

    def activations(self, rows: int, *, backward: bool) -> CNNActivations:
        """Takes memory for passes of this many rows; see `NumpyMLP`."""
        patch_floats = max(self.kernels.torso_patch_floats(ctypes.addressof(own)) for own in self._convolutions)
        return CNNActivations(
            rows,
            self._widths[1:].tolist(),
            max(rows, self._deepest, patch_floats // self._shapes[0][0]),
            self.kernels.product_panel_width(),
            torso_rows=rows if backward else min(rows, _IMAGES_AT_ONCE),
            image_floats=self._image_floats,
            outputs=self._outputs,
            patch_floats=patch_floats,
            backward=backward,
        )

    def features(self, s: np.ndarray) -> Rows:
        """Returns images as convolutions take them, uint8 or float32 [N, height * width * channels]."""
        if self._channels_first:
            s = np.moveaxis(s, 1, -1)
        images = np.ascontiguousarray(s, self._pixel).reshape(len(s), self._image_floats)
        if self._pixel == np.float32 and self._scale != 1.0:
            images = np.multiply(images, self._scale, dtype=np.float32)
        return Rows(images)
