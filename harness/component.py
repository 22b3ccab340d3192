"""The base class of data sets, posteriors and policies: objects made from settings. Oracles have another base class."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from balbench.harness.errors import shortened


class Component(BaseModel):
    """An object whose fields are its settings in a study file, with types and ranges that are checked first.

    A docstring below a field documents the setting. A subclass may have `presets`: named sets of settings, which the
    key `preset` of a study file selects. Keys in the study file take precedence over those of the preset.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )

    version: ClassVar[int] = 1
    """Raise the version when the same settings no longer give the same bytes: finished cells then run again."""
    outside_key: ClassVar[frozenset[str]] = frozenset()
    """Settings that do not determine results by themselves, such as the path of a file whose content is hashed."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named sets of settings."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, settings: Any) -> Any:
        if not isinstance(settings, dict) or "preset" not in settings:
            return settings
        preset = settings["preset"]
        if not isinstance(preset, str) or preset not in cls.presets:
            known = ", ".join(cls.presets) or "none"
            raise ValueError(f"unknown preset {shortened(repr(preset))}; presets are: {known}")
        return cls.presets[preset] | {key: value for key, value in settings.items() if key != "preset"}
