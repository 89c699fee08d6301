"""A run's config.json, in its run directory or at its checkpoint path."""

from __future__ import annotations

from typing import Any

from hvd_dqn.checkpoint.files import read_bytes
from hvd_dqn.checkpoint.storage import Location
from hvd_dqn.errors import USE_OLD_VERSION, CheckpointError, StoreError, UserError
from hvd_dqn.files import CONFIG_BYTES, parse_json

CONFIG_FILE = "config.json"
_OLD_FIELDS = {"backend", "transport", "commit_period"}
"""Fields that configurations had up to version 0.1.0."""


def has_config(folder: Location) -> bool:
    """Returns True if there is anything named config.json, whatever it is.

    Raises:
      StoreError: if that cannot be found out.
    """
    try:
        read_bytes(folder / CONFIG_FILE, CONFIG_BYTES)
    except FileNotFoundError:
        return False
    except CheckpointError:
        return True
    return True


def read_config(path: Location) -> dict[str, Any]:
    """Returns the flat configuration of a config.json; see `read_record`."""
    config: dict[str, Any] = read_record(path)["config"]
    return config


def read_record(path: Location) -> dict[str, Any]:
    """Returns all of a config.json: the flat configuration under "config", and what it ran with.

    Raises:
      UserError: if it cannot be read or is not a configuration of this program.
    """
    try:
        record = parse_json(read_bytes(path, CONFIG_BYTES))
        flat = record["config"]
    except StoreError:
        raise
    except (FileNotFoundError, CheckpointError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the configuration of a run of this program ({error!r})") from None
    if not isinstance(record, dict) or not isinstance(flat, dict):
        raise UserError(f"{path} is not the configuration of a run of this program: 'config' is no object")
    if _OLD_FIELDS & flat.keys():
        raise UserError(f"{path} was written by an older version of this program: {USE_OLD_VERSION}")
    return record
