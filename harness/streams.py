"""Named random streams, the source of every random draw of a study.

A stream is a seed and a path of names, e.g. (seed 3, "policy", round 7). Its state is the hash of both, so no
generator is passed from round to round and no draw depends on earlier draws.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Stream:
    """A source of randomness that is a pure function of `seed` and `names`."""

    seed: int
    names: tuple[str, ...] = ()

    def child(self, *names: object) -> Stream:
        """Return the stream with these names appended; the same names in the same order give the same stream."""
        return Stream(self.seed, self.names + tuple(str(name) for name in names))

    def _digest(self) -> bytes:
        # Lengths are hashed with the names, so that ("ab", "c") and ("a", "bc") differ.
        parts = [str(self.seed), *self.names]
        return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).digest()

    def numpy(self) -> np.random.Generator:
        """Return a new NumPy generator at the start of this stream."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self._digest()[:16], "big")))

    def torch(self) -> torch.Generator:
        """Return a new torch generator for the CPU at the start of this stream."""
        import torch

        return torch.Generator().manual_seed(int.from_bytes(self._digest()[:8], "big") >> 1)

    def uniform(self, *names: object) -> float:
        """Return one number in [0, 1) for the child with these names."""
        return (int.from_bytes(self.child(*names)._digest()[:8], "big") >> 11) * 2.0**-53


def stream(seed: int, *names: object) -> Stream:
    """Return the stream with this seed and these names."""
    return Stream(seed).child(*names)
