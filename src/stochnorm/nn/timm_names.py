"""Recognize timm's layers without importing timm."""

from __future__ import annotations

__all__ = ["is_timms"]


def is_timms(kind: type, name: str) -> bool:
    """Return whether a class is timm's own class with this name, not one derived from it."""
    return kind.__name__ == name and kind.__module__.startswith("timm.")
