"""Knows timm's layers without importing timm."""

from __future__ import annotations

__all__ = ["is_timms"]


def is_timms(kind: type, name: str) -> bool:
    """Whether a class is the one of this name in timm itself, and none that is derived from it."""
    return kind.__name__ == name and kind.__module__.startswith("timm.")
