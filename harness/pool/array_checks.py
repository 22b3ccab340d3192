"""Checks of the arrays of a data set. The name of an array ends in its axes, and so defines its shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from balbench.harness.errors import DataError
from balbench.harness.pool.blocks import array_blocks

Array = np.ndarray
TYPES: dict[str, tuple[type[np.generic], ...]] = {
    "float32": (np.float32,),
    "float16 or float32": (np.float16, np.float32),
    "floats": (np.floating,),
    "integers": (np.integer,),
    "strings": (np.str_,),
}


def check_arrays(part: Any, name: str, types: Mapping[str, str]) -> None:
    """Check that the fields of a dataclass are arrays of their types, whose axes agree.

    Args:
        part: a dataclass whose field names end in their axes (`responses_of_pair_N2`); fields with the default None
            may be None.
        name: name of the split, for errors.
        types: a key of TYPES for each field.

    Raises:
        DataError: an array has another type or shape.
    """
    first: dict[str, tuple[str, int]] = {}  # by axis: the first array that has the axis, and its length
    for item in fields(part):
        array, where = getattr(part, item.name), f"{name}: {item.name}"
        if array is None and item.default is not MISSING:
            continue
        if not isinstance(array, np.ndarray):
            raise DataError(f"{where}: is of the type {type(array).__name__}; give a numpy array")
        expected = types[item.name]
        if not issubclass(array.dtype.type, TYPES[expected]):
            raise DataError(f"{where}: has the type {array.dtype}; give {expected}")
        axes = item.name.rpartition("_")[2]
        if array.ndim != len(axes):
            raise DataError(f"{where}: has the shape {array.shape}; give it the axes {', '.join(axes)}")
        for axis, length in zip(axes, array.shape, strict=True):
            if axis.isdigit() and length != int(axis):
                raise DataError(f"{where}: has the shape {array.shape}; give it {axis} columns")
            other, known = first.setdefault(axis, (item.name, length))
            if length != known:
                raise DataError(f"{where}: has the shape {array.shape}, but {axis} is {known} by {other}")


def check_range(array: Array, most: float, where: str) -> None:
    """Check that all values are from 0 to `most`.

    Raises:
        DataError: a value is outside; the message names its row.
    """
    wrong = ~((array >= 0) & (array <= most))  # NaN too
    if wrong.any():
        row = int(np.argmax(wrong.reshape(len(array), -1).any(axis=1)))
        raise DataError(f"{where}: row {row} holds {array[row].tolist()}; give values from 0 to {most}")


def check_finite(array: Array, where: str) -> None:
    """Check that an array with rows holds neither NaN nor infinity.

    Raises:
        DataError: a row does; the message names the row.
    """
    for start, block in array_blocks(array):
        finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise DataError(f"{where}: row {row} holds NaN or infinity; look at the encoder or the feature file")
