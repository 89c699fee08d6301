"""Checks of checkpoint paths: URLs without credentials."""

from __future__ import annotations

import re

from hvd_dqn.errors import UserError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_NAMES_AN_ACCOUNT = ("az", "abfs", "abfss")
"""Schemes whose URLs contain an @ between the container and the account's host."""


def is_url(text: str) -> bool:
    """Returns True if a text is a URL rather than a file system path."""
    return _URL.fullmatch(text) is not None


def scheme_of(url: str) -> str:
    """Returns the scheme of a URL, in lower case."""
    return url.partition("://")[0].lower()


def check_url(text: str, flag: str) -> None:
    """Checks the form of a checkpoint path. The messages do not repeat possible secrets.

    Args:
      text: the path.
      flag: the command line flag, for the message.

    Raises:
      UserError: if the text is not a URL, contains credentials or parameters, or lacks a path.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise UserError(f"{flag} {text}: give a URL such as s3://bucket/run, or file:///folder/run for a folder")
    scheme, rest = match[1].lower(), match[2]
    host = rest.partition("/")[0]
    user, at, _ = host.rpartition("@")
    if (at and (":" in user or scheme not in _NAMES_AN_ACCOUNT)) or set(rest) & set("?#"):
        raise UserError(
            f"{flag}: this {scheme}:// URL contains credentials or parameters, which would be written to config.json "
            "and logs: give the bare URL, and set credentials in the environment (AWS_..., GOOGLE_..., AZURE_...)"
        )
    if scheme in ("file", "local") and not rest.startswith("/"):
        raise UserError(f"{flag} {text}: give the absolute path, with three slashes: file:///folder/run")
    if not rest.strip("/"):
        raise UserError(f"{flag} {text}: add a path, such as {scheme}://bucket/run")
