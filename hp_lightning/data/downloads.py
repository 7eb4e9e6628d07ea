"""From a remote file to a whole local one: downloaded once, into the cache."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec
import platformdirs
from fsspec.callbacks import Callback

from hp_lightning.common.console import log, progress
from hp_lightning.common.errors import InputError, label, printable, reason
from hp_lightning.common.files import atomic_write
from hp_lightning.schema.data import DataConfig

SECONDS_TO_CONNECT = 30
SECONDS_WITHOUT_DATA = 60


def cache_folder(cfg: DataConfig) -> Path:
    """Where downloads and whatever else can be made again are kept: `data.cache_dir`, or the user's cache folder."""
    return Path(os.path.expanduser(cfg.cache_dir)) if cfg.cache_dir else platformdirs.user_cache_path("hp_lightning")


def is_remote(place: str) -> bool:
    """Whether a place is to be opened by fsspec."""
    return "://" in place


def local_path(place: str) -> str:
    """The path that a file:// URL stands for; any other place as it is."""
    whole = place.startswith("file://") and "::" not in place
    return str(fsspec.core.strip_protocol(place)) if whole else place


def remote_name(url: str) -> str:
    """The name of the file that a URL leads to."""
    first = next(link for link in url.split("::") if "://" in link)  # of a chain, as in zip://a.csv::https://...
    path = re.split(r"[?#]", first)[0]
    return unquote(path.rstrip("/").rsplit("/", 1)[-1])


def cached_path(url: str, cfg: DataConfig) -> Path:
    """Where the local copy of a remote file lies, or would lie."""
    # The name's last characters are kept for their endings.
    name = re.sub(r"[^\w.-]+", "_", remote_name(url), flags=re.ASCII)[-100:]
    return cache_folder(cfg) / "downloads" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


@contextmanager
def download(url: str, path: Path) -> Iterator[Path]:
    """Download a remote file, whole or not at all; return it to be looked at before it takes its place at `path`.

    Raises:
        InputError: the file cannot be downloaded, or the cache cannot be written.
    """
    log.info("downloading %s", printable(url))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            _fetch(url, file.name)
            yield Path(file.name)
    except OSError as error:
        raise InputError(
            "data.cache_not_writable",
            f"the cache {path.parent.parent} cannot be written ({error.strerror}): set data.cache_dir to a folder that "
            "can",
        ) from error


def _fetch(url: str, target: str) -> None:
    try:
        with ExitStack() as stack:
            files, path = fsspec.core.url_to_fs(url, **_options(url))
            files.get_file(path, target, callback=_Told(f"downloading {remote_name(url)}", stack))
    except ImportError as error:
        raise InputError(
            "data.missing_package", f"{label(url)} needs a package that is not installed: {reason(error)}"
        ) from error
    except FileNotFoundError as error:
        raise InputError("data.not_found", f"{label(url)} does not exist: check the address") from error
    except TimeoutError as error:
        raise InputError(
            "data.timeout",
            f"{label(url)} cannot be downloaded (the server did not answer in time): check the connection, or try "
            "again",
        ) from error
    except Exception as error:  # every backend of fsspec has its own
        raise InputError(
            "data.not_downloaded",
            f"{label(url)} cannot be downloaded ({reason(error)}): check the address and the connection",
        ) from error


def _options(url: str) -> dict[str, Any]:
    """What fsspec is told about HTTP: aiohttp's own bound of five minutes in all would end large downloads."""
    from aiohttp import ClientTimeout  # takes longer to import than most corpora to find

    timeout = ClientTimeout(total=None, sock_connect=SECONDS_TO_CONNECT, sock_read=SECONDS_WITHOUT_DATA)
    http = {
        "client_kwargs": {"timeout": timeout, "trust_env": True},
        "headers": {"Accept-Encoding": "identity"},  # the file as it lies there
    }
    return {scheme: http for scheme in ("http", "https") if f"{scheme}://" in url}


class _Told(Callback):  # type: ignore[misc]
    """Tells of the progress of a transfer, from when its size is known."""

    def __init__(self, what: str, stack: ExitStack) -> None:
        super().__init__()
        self._what, self._stack = what, stack
        self._advance: Any = None
        self._told = 0

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """What fsspec calls at every change."""
        if self._advance is None:
            self._advance = self._stack.enter_context(progress(self._what, self.size))
        self._advance(self.value - self._told)
        self._told = self.value
