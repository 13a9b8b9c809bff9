"""What an issue about stochnorm needs to know of the machine."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Env"]


@dataclass(frozen=True)
class Env:
    """Print versions, device, kernels and caches, to paste into an issue. It names no user, host or folder."""

    def run(self) -> None:
        from stochnorm.runs.machine import facts
        from stochnorm.terminal import Terminal

        found = facts()
        width = max(map(len, found))
        console = Terminal(soft_wrap=True)
        for name, value in found.items():
            console.print(f"{name.ljust(width)}  {value}".rstrip(), markup=False)
