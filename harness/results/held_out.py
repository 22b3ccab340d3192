"""Facts about held-out pairs, which a run keeps beside data.json: with them the predictions can be analysed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import disk_errors, replacing

Array = np.ndarray
HELD_OUT = "held_out.safetensors"


class HeldOut(NamedTuple):
    """The pairs of a held-out split, in the order of their predictions.

    Attributes:
        share_N: float64 share of the votes for the first response; NaN without votes.
        prompt_N: the prompt of each pair, as an int32 index from 0. Votes on pairs of a prompt are not independent.
        distance_N: float32 Euclidean distance between the features of the two responses.
    """

    share_N: Array
    prompt_N: Array
    distance_N: Array


def write_held_out(folder: Path, splits: dict[str, HeldOut]) -> None:
    """Write the held-out pairs of a data set to its folder in the run directory.

    Raises:
        RunDirectoryError: the folder cannot be written.
    """
    from safetensors.numpy import save

    arrays = {f"{split}.{name}": each for split, part in splits.items() for name, each in part._asdict().items()}
    path = folder / HELD_OUT
    with disk_errors(path), replacing(path) as temporary:
        temporary.write_bytes(save(arrays))


def read_held_out(folder: Path) -> dict[str, HeldOut] | None:
    """Read the held-out pairs of a data set by split; None if the run was made by a version that did not store them.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / HELD_OUT
    try:
        arrays = load(path.read_bytes())
        splits = sorted({name.rpartition(".")[0] for name in arrays})
        return {split: HeldOut(*(arrays[f"{split}.{name}"] for name in HeldOut._fields)) for split in splits}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        remedy = "delete it and run the study again, which writes it again"
        raise RunDirectoryError(f"{path}: cannot be read ({error}); {remedy}") from None
