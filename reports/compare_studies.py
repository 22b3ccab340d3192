"""What differs between two studies or two sets of settings, as lines `posterior.members: 5 -> 10`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from balbench.harness.errors import shortened

ABSENT = "nothing"
WORLD_KEYS = ("dataset", "oracle", "posterior", "posteriors", "protocol", "grid")  # what all policies share
_LONGEST = 40  # characters of a value


def changes(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield one line for each value that differs, with its dotted path, in the order of `before`.

    Args:
        before, now: plain values of JSON. An empty list, mapping or text equals an absent value.
        path: the path of the values, for the lines.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from changes(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif (before or None) != (now or None) or _is_flag(before) != _is_flag(now):
        yield f"{path}: {_shown(before)} -> {_shown(now)}"


def study_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences of two study files; policies are matched by their labels."""
    for key in dict.fromkeys([*before, *now]):
        if key == "policies":
            yield from changes(_by_label(before.get(key)), _by_label(now.get(key)), "policies")
        else:
            yield from changes(before.get(key), now.get(key), key)


def world_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences of two study files in what all policies share."""
    for key in WORLD_KEYS:
        yield from changes(before.get(key), now.get(key), key)


def _by_label(policies: Any) -> dict[str, Any]:
    return {str(policy.get("label", policy.get("name"))): policy for policy in policies or ()}


def _is_flag(value: Any) -> bool:
    """Return whether a value is a number or a truth value, which is not the same as an absent value when it is zero."""
    return isinstance(value, (bool, int, float))


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    return shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _LONGEST)
