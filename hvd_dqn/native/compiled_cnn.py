"""The Nature CNN in one compiled call per pass: convolutions as products of patches, before an MLP."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from hvd_dqn.learner.parameters import ParameterLayout
from hvd_dqn.native.compiled_mlp import CompiledActivations, CompiledMLP
from hvd_dqn.native.compiled_structs import ConvolutionStruct, TorsoPassStruct, TorsoStruct
from hvd_dqn.native.library import address, aligned_zeros
from hvd_dqn.native.numpy_mlp import Rows
from hvd_dqn.networks.build import NATURE_CONVOLUTIONS, has_channels_first, image_sides

_ENOUGH_POSITIONS = 240
"""Of filters, at which a product is as fast as it gets: where an image has fewer, several are taken together."""
_IMAGES_AT_ONCE = 8
"""Of a forward pass that no backward pass follows: as many as stay in a core's cache between two convolutions."""


class _Convolution:
    """One convolution and where its patches lie."""

    def __init__(self, sides: list[int], channels: int, filters: int, size: int, stride: int) -> None:
        """Takes the shape of its images and its own."""
        self.sides = [(side - size) // stride + 1 for side in sides]
        self.positions = self.sides[0] * self.sides[1]
        self.image_floats, self.outputs = sides[0] * sides[1] * channels, self.positions * filters
        self.at_once = -(-_ENOUGH_POSITIONS // self.positions)
        self.numbers = size * size * channels
        line = sides[1] * channels
        image, y, x = np.ogrid[: self.at_once, : self.sides[0], : self.sides[1]]
        positions = image * self.image_floats + y * stride * line + x * stride * channels
        row, number = np.ogrid[:size, : size * channels]
        self._places = [np.ascontiguousarray(of.ravel(), np.uint32) for of in (positions, row * line + number)]
        places_at = [of.ctypes.data for of in self._places]
        self.struct = ConvolutionStruct(*sides, channels, size, stride, filters, self.at_once, *places_at)


class _TorsoShape(NamedTuple):
    """How much memory a torso's passes take."""

    images: int  # floats of the images that the first convolution takes at once
    patch_gradients: int  # floats
    outputs: list[int]  # floats per image of each convolution


class CNNActivations(CompiledActivations):
    """What a CNN's passes leave behind: an MLP's memory, and the convolutions'."""

    def __init__(
        self,
        rows: int,
        widths: list[int],
        deepest: int,
        panel_width: int,
        *,
        torso: _TorsoShape,
        torso_rows: int,
        backward: bool,
    ) -> None:
        """Takes memory.

        Args:
          rows: see `CompiledActivations`.
          widths: see `CompiledActivations`.
          deepest: see `CompiledActivations`.
          panel_width: see `CompiledActivations`.
          torso: the convolutions' demands.
          torso_rows: images that go through all convolutions before the next.
          backward: whether backward passes follow.
        """
        super().__init__(rows, widths, deepest, panel_width)
        images, features = aligned_zeros(torso.images), np.empty((rows, torso.outputs[-1] + 1), np.float32)
        values = [aligned_zeros(torso_rows * floats) for floats in torso.outputs]
        self._torso_memory = [images, features, *values]
        self._torso_values_at = np.array([address(array) for array in values], np.uintp)
        self.struct.features = address(features)
        self.struct.torso = TorsoPassStruct(torso_rows, address(images), None, self._torso_values_at.ctypes.data)
        if backward:
            feature_gradients, patch_gradients = np.empty_like(features), aligned_zeros(torso.patch_gradients)
            gradients = [aligned_zeros(array.size) for array in values]
            self._torso_memory += [feature_gradients, patch_gradients, *gradients]
            self._torso_gradients_at = np.array([address(array) for array in gradients], np.uintp)
            self.struct.feature_gradients = address(feature_gradients)
            self.struct.torso.patch_gradients = address(patch_gradients)
            self.struct.torso.gradients = self._torso_gradients_at.ctypes.data


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
        self._convolutions: list[_Convolution] = []
        for filters, size, stride in NATURE_CONVOLUTIONS:
            self._convolutions.append(_Convolution(sides, channels, filters, size, stride))
            sides, channels = self._convolutions[-1].sides, filters
        self._structs = (ConvolutionStruct * depth)(*(own.struct for own in self._convolutions))
        self._pixel = np.dtype(np.uint8 if observation_dtype == np.uint8 else np.float32)
        self._torso = TorsoStruct(
            ctypes.addressof(self._structs), depth, sum(layout.sizes[: 2 * depth]), self._pixel.itemsize, self._scale
        )
        self._struct.row_bytes = self._convolutions[0].image_floats * self._pixel.itemsize
        self._struct.torso = ctypes.addressof(self._torso)

    def activations(self, rows: int, *, backward: bool) -> CNNActivations:
        """Takes memory for passes of this many rows; see `NumpyMLP`."""
        first, *others = self._convolutions
        return CNNActivations(
            rows,
            self._widths[1:].tolist(),
            max(rows, self._deepest, *(max(own.at_once * own.positions, own.numbers) for own in self._convolutions)),
            self.kernels.product_panel_width(),
            torso=_TorsoShape(
                first.at_once * first.image_floats,
                max(own.at_once * own.positions * own.numbers for own in others),
                [own.outputs for own in self._convolutions],
            ),
            torso_rows=rows if backward else min(rows, _IMAGES_AT_ONCE),
            backward=backward,
        )

    def features(self, s: np.ndarray) -> Rows:
        """Returns images as convolutions take them, uint8 or float32 [N, height * width * channels]."""
        if self._channels_first:
            s = np.moveaxis(s, 1, -1)
        images = np.ascontiguousarray(s, self._pixel).reshape(len(s), self._convolutions[0].image_floats)
        if self._pixel == np.float32 and self._scale != 1.0:
            images = np.multiply(images, self._scale, dtype=np.float32)
        return Rows(images)
