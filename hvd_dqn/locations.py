"""Where checkpoints may lie, as text: a URL that holds no credentials."""

from __future__ import annotations

import re

from hvd_dqn.errors import UserError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_NAMES_AN_ACCOUNT = ("az", "abfs", "abfss")
"""Schemes in whose URLs an @ stands between the container and the account's host."""


def is_url(text: str) -> bool:
    """Returns whether a text is a URL and no path of a file system."""
    return _URL.fullmatch(text) is not None


def scheme_of(url: str) -> str:
    """Returns the part of a URL before ://, in lower case."""
    return url.partition("://")[0].lower()


def check_url(text: str, flag: str) -> None:
    """Checks the form of a checkpoint path. What may be a secret is not repeated.

    Args:
      text: the path.
      flag: of the command line, for the message.

    Raises:
      UserError: if it is no URL, holds credentials or parameters, or names no place.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise UserError(f"{flag} {text}: give a URL such as s3://bucket/run, or file:///folder/run for a folder")
    scheme, rest = match[1].lower(), match[2]
    host = rest.partition("/")[0]
    user, at, _ = host.rpartition("@")
    if (at and (":" in user or scheme not in _NAMES_AN_ACCOUNT)) or set(rest) & set("?#"):
        raise UserError(
            f"{flag}: this {scheme}:// URL holds credentials or parameters, which would be written into config.json "
            "and logs: give the bare URL, and credentials in the environment (AWS_..., GOOGLE_..., AZURE_...)"
        )
    if scheme in ("file", "local") and not rest.startswith("/"):
        raise UserError(f"{flag} {text}: give the folder's whole path, with three slashes: file:///folder/run")
    if not rest.strip("/"):
        raise UserError(f"{flag} {text}: name a place in the store, such as {scheme}://bucket/run")
