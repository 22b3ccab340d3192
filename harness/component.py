"""Components: the parts of a study that have settings (datasets, posteriors, policies; oracles are alike)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Component(BaseModel):
    """Settings with types and ranges, checked before anything runs.

    A subclass may offer `presets`: named sets of settings, chosen by the key `preset` of a study file. Keys that
    the study file gives win over the preset's.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )
    version: ClassVar[int] = 1  # raise it when the same settings no longer give the same bytes
    outside_key: ClassVar[frozenset[str]] = frozenset()  # settings that do not determine the result by themselves
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, settings: Any) -> Any:
        if not isinstance(settings, dict) or "preset" not in settings:
            return settings
        preset = settings["preset"]
        if not isinstance(preset, str) or preset not in cls.presets:
            raise ValueError(f"unknown preset {preset!r}; presets are: {', '.join(cls.presets) or 'none'}")
        return cls.presets[preset] | {key: value for key, value in settings.items() if key != "preset"}
