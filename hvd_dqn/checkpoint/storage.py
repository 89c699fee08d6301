"""Files in an object store, through fsspec: read, write, list, remove.

Writes are atomic. There are no folders: the objects below a name are found by listing. fsspec reads credentials from
the environment. Every call has a time limit.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from hvd_dqn.errors import CheckpointError, StoreError, UserError
from hvd_dqn.locations import check_url, scheme_of

CALL_SECONDS = 30.0
"""Time limit of one call, in addition to the time for its bytes."""
_SLOWEST = 1e6
"""Minimum bytes per second of a store; sets the time allowed for a call's bytes."""
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_ENVIRONMENT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
}
_S3_CONFIG = {"connect_timeout": 5, "read_timeout": 20, "retries": {"mode": "standard", "max_attempts": 3}}
_CREDENTIALS_IN_URL = re.compile(r"//[^/\s]*@")


class ObjectPath:
    """A name in an object store: one object, or the prefix of several.

    Methods raise FileNotFoundError if the object is absent, and StoreError for any other failure.
    """

    def __init__(self, filesystem: Any, path: str, url: str) -> None:
        """Creates a path. Makes no call to the store.

        Args:
          filesystem: an fsspec file system.
          path: the name in the file system's own form.
          url: the same name as a URL, for messages.
        """
        self._filesystem = filesystem
        self._path = path
        self._url = url

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self._filesystem, f"{self._path}/{name}", f"{self._url}/{name}")

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"ObjectPath({self._url})"

    @property
    def name(self) -> str:
        """Returns the last component of the name."""
        return self._path.rpartition("/")[2]

    def reach(self) -> None:
        """Checks that the store answers and that the bucket exists."""
        try:
            self._call("find", self._path)
        except FileNotFoundError as error:
            if "does not exist" in str(error):  # some stores raise this for an empty prefix, too
                raise StoreError(f"{self}: {error}: create the bucket or container first") from None

    def read(self, most: int) -> bytes:
        """Returns the object's content of at most `most` bytes.

        Raises:
          CheckpointError: if it is larger, or no object.
        """
        found = self._call("info", self._path)
        size = int(found["size"] or 0)
        if size > most or found["type"] != "file":
            raise CheckpointError(f"{self.name} is a {found['type']} of {size:,} bytes, not a file of at most {most:,}")
        content: bytes = self._call("cat_file", self._path, size=size)
        return content

    def write(self, content: bytes) -> None:
        """Writes or replaces the object in one atomic call."""
        try:
            self._call("pipe_file", self._path, content, size=len(content))
        except FileNotFoundError as error:
            raise StoreError(f"{self}: {error}: create the bucket or container first") from None

    def names(self) -> list[str]:
        """Returns the names of all objects with this prefix, relative to it."""
        try:
            keys = self._call("find", self._path)
        except FileNotFoundError:
            return []
        return sorted(key[len(self._path) + 1 :] for key in keys if key.startswith(f"{self._path}/"))

    def remove(self) -> None:
        """Removes the object, or all objects with this prefix."""
        for path in [self / key for key in self.names()] or [self]:
            with contextlib.suppress(FileNotFoundError):
                path._call("rm_file", path._path)

    def _call(self, method: str, *arguments: Any, size: int = 0) -> Any:
        """Calls the file system, with a time limit if it is asynchronous."""
        self._filesystem.invalidate_cache()  # other processes write, too
        try:
            if not self._filesystem.async_impl:
                return getattr(self._filesystem, method)(*arguments)
            from fsspec.asyn import sync

            call = getattr(self._filesystem, f"_{method}")
            return sync(self._filesystem.loop, call, *arguments, timeout=CALL_SECONDS + size / _SLOWEST)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StoreError(f"{self}: {_in_words(error, scheme_of(self._url))}") from None


Location = Path | ObjectPath
"""A path on a local file system or in an object store."""


def open_location(url: str, flag: str) -> Location:
    """Returns the location of a URL; a local folder for file:///.

    Args:
      url: the URL.
      flag: the command line flag, for messages.

    Raises:
      UserError: if the URL is malformed, or a package or configuration for it is missing.
    """
    check_url(url, flag)
    scheme, url = scheme_of(url), url.rstrip("/")
    if scheme in ("file", "local"):
        return Path(os.path.realpath(url.partition("://")[2]))
    extra = _EXTRAS.get(scheme)
    # Do not reuse a cached file system: the environment may have changed.
    options: dict[str, Any] = {"skip_instance_cache": True}
    if extra is not None:
        options["use_listings_cache"] = False
    if extra == "s3":
        options["config_kwargs"] = _S3_CONFIG
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # a query per call
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(url, **options)
    except ImportError as error:
        raise UserError(f"{flag} {url}: {_missing(scheme, extra)} ({error})") from None
    except Exception as error:
        if "not known" in str(error):
            raise UserError(
                f"{flag} {url}: {scheme}:// is not supported: use s3://, gs://, az://, file:/// or another of fsspec"
            ) from None
        raise UserError(f"{flag} {url}: {_in_words(error, scheme)}") from None
    return ObjectPath(filesystem, path, url)


def _missing(scheme: str, extra: str | None) -> str:
    if extra is None:
        return f"{scheme}:// needs fsspec and its package for this scheme"
    return f"{scheme}:// needs the extra [{extra}]: make setup EXTRAS='atari {extra}', or pip install '.[{extra}]'"


def _in_words(error: Exception, scheme: str) -> str:
    """Returns an error as one line without credentials."""
    variables = _ENVIRONMENT.get(_EXTRAS.get(scheme, ""), "the environment")
    kind = type(error).__name__
    text = _CREDENTIALS_IN_URL.sub("//...@", " ".join(str(error).split()).partition(" RequestId:")[0])[:300]
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return f"no answer in time ({kind} {text})".replace(" )", ")")
    if isinstance(error, PermissionError):
        return f"access denied ({text}): check the credentials in the environment ({variables})"
    if "Credentials" in kind or "credential" in text:
        return f"no usable credentials ({text}): set them in the environment ({variables})"
    return f"{kind}: {text}" if text else kind
