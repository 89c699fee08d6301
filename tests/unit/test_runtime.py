"""Laws of the environment that a rank prepares before it loads NumPy and TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
from hvd_dqn.distributed.launcher import Launch
from hvd_dqn.distributed.runtime import prepare_environment
prepare_environment(Launch(), 1, 0.0, bind_to_cores=False)
import keras
print(keras.backend.backend(), keras.backend.image_data_format(), keras.backend.floatx())
"""


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        ({"KERAS_BACKEND": "torch", "KERAS_MAX_EPOCHS": "few", "KERAS_HOME": "/root/other"}, {}),
        ({}, {"backend": "jax", "image_data_format": "channels_first", "floatx": "float16", "epsilon": 1e-3}),
    ],
)
def test_the_users_keras_settings_do_not_reach_the_job(
    variables: dict[str, str], settings: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    environ = os.environ | variables | {"HOME": str(tmp_path)}
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "tensorflow channels_last float32\n", done.stderr
    assert json.loads((tmp_path / ".keras" / "keras.json").read_text()) == settings


@pytest.mark.parametrize(
    ("block", "shown"),
    [("pass", ""), ("show()", "held\n"), ("raise SystemExit", "held\n")],
)
def test_what_is_printed_while_libraries_start_is_shown_when_it_matters(block: str, shown: str) -> None:
    """As TensorFlow's C++ prints, past Python's streams."""
    program = (
        "import os\nfrom hvd_dqn.distributed.runtime import quiet_stderr\n"
        f"with quiet_stderr() as show:\n    os.write(2, b'held\\n')\n    {block}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == shown
