"""The formats of an export: how each is written, and how its own runtime reads it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hvd_dqn.errors import UserError
from hvd_dqn.files import write_file

if TYPE_CHECKING:
    import keras
    import numpy as np

Network = Callable[..., "np.ndarray"]
"""(observation [N, ...], with masks also action_mask int8 [N, A]) -> action values float32 [N, A] or [N, J, A]."""


class Format(NamedTuple):
    """One format."""

    file: str
    """Name of the model's file, or folder, in the folder of an export."""
    write: Callable[[keras.Model, Path], None]
    """Writes a stock model to a path."""
    load: Callable[[Path], Network]
    """Reads what was written, by the runtime that it is for."""
    code: str
    """Three lines of a program that uses it, in which INPUTS stands for the observations."""
    needs: tuple[str, ...] = ()
    """Packages that write and read it, of the extra [onnx]."""
    traced: bool = False
    """Whether it holds what the network computes, so that layers of the user's own need no code when it is read."""
    programs: tuple[str, ...] = ()
    """Files of this package that belong next to it."""


def code(name: str, masked: bool) -> list[str]:
    """Returns the lines of a program that loads a format and computes action values.

    Args:
      name: of the format.
      masked: whether the network takes action masks.
    """
    names = ["observation", "action_mask"] if masked else ["observation"]
    inputs = ", ".join(names)
    if name == "onnx":
        inputs = "{" + ", ".join(f"'{name}': {name}" for name in names) + "}"
    elif name != "safetensors" and masked:
        inputs = f"[{inputs}]"
    return FORMATS[name].code.replace("INPUTS", inputs).split("\n")


def check_installed(name: str) -> None:
    """Checks that the packages of a format are installed.

    Raises:
      UserError: if one is not.
    """
    missing = [package for package in FORMATS[name].needs if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"--format {name} needs the extra [onnx]: pip install 'hvd-dqn[onnx]' (no {', '.join(missing)} here)"
        )


def _write_keras(model: keras.Model, path: Path) -> None:
    model.save(path)


def _load_keras(path: Path) -> Network:
    import keras
    import numpy as np

    model = keras.models.load_model(path)
    return lambda *inputs: np.asarray(model(_one_or_list(inputs)))


def _write_saved_model(model: keras.Model, path: Path) -> None:
    model.export(path, verbose=False)


def _load_saved_model(path: Path) -> Network:
    import tensorflow as tf

    model = tf.saved_model.load(str(path))  # its variables live as long as this object
    return lambda *inputs: model.serve(_one_or_list(inputs)).numpy()


def _write_onnx(model: keras.Model, path: Path) -> None:
    from keras import ops

    model(_one_or_list([ops.zeros((1, *part.shape[1:]), part.dtype) for part in model.inputs]))  # Keras asks for a call
    model.export(path, format="onnx", verbose=False)


def _load_onnx(path: Path) -> Network:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(path)
    names = [part.name for part in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]


def _write_safetensors(model: keras.Model, path: Path) -> None:
    import numpy as np
    import safetensors.numpy

    from hvd_dqn.export.steps import steps_of

    weights = {variable.path: np.ascontiguousarray(variable) for variable in model.variables}
    write_file(path, safetensors.numpy.save(weights, {"network": json.dumps(steps_of(model))}))


def _load_safetensors(path: Path) -> Network:
    from hvd_dqn.export.numpy_network import load

    return load(path)


def _one_or_list(inputs: Sequence[Any]) -> Any:
    return list(inputs) if len(inputs) > 1 else inputs[0]


FORMATS = {
    "keras": Format(
        "model.keras",
        _write_keras,
        _load_keras,
        "import keras\nmodel = keras.models.load_model('model.keras')\naction_values = model(INPUTS)",
    ),
    "saved-model": Format(
        "saved_model",
        _write_saved_model,
        _load_saved_model,
        "import tensorflow as tf\nmodel = tf.saved_model.load('saved_model')\naction_values = model.serve(INPUTS)",
        traced=True,
    ),
    "onnx": Format(
        "model.onnx",
        _write_onnx,
        _load_onnx,
        "import onnxruntime\nsession = onnxruntime.InferenceSession('model.onnx')\n"
        "(action_values,) = session.run(None, INPUTS)",
        needs=("tf2onnx", "onnxruntime"),
        traced=True,
    ),
    "safetensors": Format(
        "model.safetensors",
        _write_safetensors,
        _load_safetensors,
        "from numpy_network import load\nnetwork = load('model.safetensors')\naction_values = network(INPUTS)",
        programs=("numpy_network.py",),
    ),
}
"""By the names of --format."""
