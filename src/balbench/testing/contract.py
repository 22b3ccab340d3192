"""Code that the checks share: errors that name promise, input and remedy, guarded calls, calls in another process."""

from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, TypeVar

import cloudpickle
import numpy as np
import torch
from loky import get_reusable_executor

T = TypeVar("T")
LONGEST_NAME = 120  # characters of a component in a message
IDLE_SECONDS = 120  # idle time after which the other process ends
_seeds = itertools.count(1)


class ContractError(AssertionError):
    """A component breaks a promise. The message says which promise, for which input, and what to change."""


class Subject:
    """A component under test."""

    def __init__(self, component: Any) -> None:
        self.component = component
        name = repr(component)
        self._name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."

    def require(self, holds: object, broken: str, given: str, remedy: str) -> None:
        """Raise a ContractError unless a promise holds.

        Args:
            holds: whether the promise holds.
            broken: what the component does instead.
            given: the input.
            remedy: what the author should change.
        """
        if not holds:
            raise ContractError(f"{self._name}: {broken} (given {given}); {remedy}")

    def require_class(self, base: type) -> None:
        """Raise a ContractError unless the component is an instance of `base` with a docstring and a version."""
        self.require(
            isinstance(self.component, base),
            f"is not an instance of {base.__name__}",
            f"a {type(self.component).__name__}",
            f"pass an instance of a subclass of {base.__module__}.{base.__name__}",
        )
        kind = type(self.component)
        self.require(kind.__doc__, "has no docstring", "the class", "describe in its first line what the class does")
        version = getattr(kind, "version", None)
        self.require(
            isinstance(version, int) and version >= 1,
            f"has the version {version!r}",
            "the class",
            "set `version` to a whole number from 1",
        )

    def call(self, given: str, method: Callable[..., T], *arguments: Any) -> T:
        """Call a method of the component. Global random generators have a new state in each call and must not change.

        Raises:
            ContractError: the method raises an error, or draws from a global random generator.
        """
        with self._own_randomness(method.__name__, given):
            try:
                return method(*arguments)
            except Exception as error:
                line = " ".join(f"{type(error).__name__}: {error}".split())
                raise ContractError(f"{self._name}: {method.__name__} raised {line} (given {given})") from error

    @contextmanager
    def _own_randomness(self, method: str, given: str) -> Iterator[None]:
        """Seed the global generators with a number of this call only; afterwards compare and restore them."""
        saved = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        _seed_global_generators(next(_seeds))
        before = global_states()
        try:
            yield
            after = global_states()
        finally:
            random.setstate(saved[0])
            np.random.set_state(saved[1])  # noqa: NPY002
            torch.set_rng_state(saved[2])
        for name, state in before.items():
            self.require(
                state == after[name],
                f"{method} changes the state of the global generator of {name}",
                given,
                "draw all random numbers from the stream: stream.numpy(), stream.torch() or stream.uniform(...)",
            )

    def call_in_another_process(self, given: str, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on the component and arguments in another process.

        Raises:
            ContractError: the component cannot be sent to the process, or the call raises an error.
        """
        try:
            task = cloudpickle.dumps((function, (self.component, *arguments)))
            executor = get_reusable_executor(max_workers=1, timeout=IDLE_SECONDS)
            return executor.submit(_run_pickled, task, torch.get_num_threads()).result()
        except Exception as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            raise ContractError(
                f"{self._name}: does not work in another process: {line} (given {given}); "
                "define the class in a module that can be imported, with settings that can be pickled"
            ) from error


def _run_pickled(task: bytes, threads: int) -> Any:
    torch.set_num_threads(threads)  # the bits of some matrix products depend on the number of threads
    function, arguments = pickle.loads(task)
    return function(*arguments)


def _seed_global_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)


def global_states() -> dict[str, str]:
    """Return a hash of the state of each global random generator, by the name of its library."""
    states = {
        "random": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    return {name: sha256(pickle.dumps(state)).hexdigest() for name, state in states.items()}


def fingerprint(values: dict[str, Any]) -> dict[str, str]:
    """Return a hash of each array and tensor by name, without values of other types."""
    arrays = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in values.items()}
    return {
        name: sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        for name, array in arrays.items()
        if isinstance(array, np.ndarray)
    }


def same(first: Any, second: Any) -> bool:
    """Return whether two arrays or tensors have the same type, shape and bits; NaN equals NaN."""
    a, b = (value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value for value in (first, second))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
