"""Features on disk, in shards that are written completely or not at all and named by the hash of their bytes.

A directory holds the features of one encoder with one set of settings. Any number of processes may share it:
a shard never changes, and two processes that write the same shard write the same bytes under the same name.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from balbench.harness.errors import DataError
from balbench.harness.files import cache_directory, replacing
from balbench.harness.pool.pairs import MEMORY_MAP_BYTES

Array = np.ndarray
SHARD_TEXTS, SHARD_SECONDS = 1024, 30.0  # a shard is written when either is reached


def spare_array(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return an array to fill, in memory or, if it is large, in an anonymous file that is freed with the array.

    Raises:
        DataError: the cache directory cannot be written.
    """
    size = np.dtype(dtype).itemsize * math.prod(shape)
    if size <= MEMORY_MAP_BYTES:
        return np.empty(shape, dtype=dtype)
    try:
        cache_directory().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache_directory()) as file:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):  # raises an error for a full disk now, not when a page is written
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        raise DataError(
            f"{cache_directory()}: no room for {size:,} bytes of features ("
            f"{error.strerror or error}); free space, or set BALBENCH_CACHE to another directory"
        ) from None


class FeatureCache:
    """Features by key (32 bytes that name a text).

    Attributes:
        directory: the directory of the shards; created with the first shard.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._location: dict[bytes, tuple[Path, int]] = {}
        self._pending: dict[bytes, Array] = {}
        self._written = time.monotonic()
        with self._disk("read"):
            self._index()

    def __contains__(self, key: bytes) -> bool:
        return key in self._location or key in self._pending

    def check_writable(self) -> None:
        """Check, before features are computed, that they can be written (errors as in `add`)."""
        with self._disk("written"):
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.directory):
                pass

    def add(self, keys: Iterable[bytes], features_BD: Array) -> None:
        """Store features of new keys. They are written every 30 seconds, so that a killed run loses at most those.

        Raises:
            DataError: the disk is full or the directory cannot be written.
        """
        for key, features_D in zip(keys, features_BD, strict=True):
            if key not in self:
                self._pending[key] = features_D
        if len(self._pending) >= SHARD_TEXTS or time.monotonic() > self._written + SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write all features that are not on disk yet (errors as in `add`)."""
        if self._pending:
            with self._disk("written"):
                self._write()

    def read(self, keys: list[bytes]) -> Array:
        """Return the float32 features of B keys, (B, D), in an array that `spare_array` makes.

        Raises:
            DataError: a shard is missing or damaged.
            KeyError: a key is unknown.
        """
        self.flush()
        rows_of: dict[Path, list[tuple[int, int]]] = {}
        for out, key in enumerate(keys):
            path, row = self._location[key]
            rows_of.setdefault(path, []).append((out, row))
        features_BD = np.empty((len(keys), 0), dtype=np.float32)
        for path, rows in rows_of.items():
            with self._disk("read"):
                shard = _load(path)
            if shard is None:
                raise DataError(f"feature cache {self.directory}: changed while it was read; run again")
            if not features_BD.size:
                features_BD = spare_array((len(keys), shard["features"].shape[1]), np.float32)
            out_B, row_B = np.array(rows).T
            features_BD[out_B] = shard["features"][row_B]
        return features_BD

    def _index(self) -> None:
        # The order is fixed, so that the same shard is always used if two shards have the same text.
        for path in sorted(self.directory.glob("*.safetensors")):
            shard = _load(path)
            if shard is None:
                path.unlink(missing_ok=True)
                continue
            for row, key in enumerate(shard["keys"]):
                self._location.setdefault(key.tobytes(), (path, row))

    def _write(self) -> None:
        from safetensors.numpy import save

        keys = np.frombuffer(b"".join(self._pending), dtype=np.uint8).reshape(-1, 32)
        data = save({"keys": keys, "features": np.stack(list(self._pending.values())).astype(np.float32)})
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{hashlib.sha256(data).hexdigest()}.safetensors"
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        self._location |= {key: (path, row) for row, key in enumerate(self._pending)}
        self._pending = {}
        self._written = time.monotonic()

    @contextmanager
    def _disk(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"feature cache {self.directory}: cannot be {verb} ({error.strerror or error});"
                " free space, or set BALBENCH_CACHE to another directory"
            ) from None


def _load(path: Path) -> dict[str, Array] | None:
    """Return a shard, or None if the file is missing or its bytes have changed."""
    from safetensors.numpy import load

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return load(data) if hashlib.sha256(data).hexdigest() == path.stem else None
