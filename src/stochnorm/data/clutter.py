"""Files and folders that systems and programs leave among images."""

from __future__ import annotations

__all__ = ["is_clutter"]

_NAMES = frozenset({
    "__macosx", "icon\r",  # macOS, in archives and in folders with an icon of their own
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "folder.ico", "$recycle.bin",
    "system volume information",  # Windows
    "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",  # network disks
    "lost+found", "picasa.ini", "zbthumbnail.info",
})  # fmt: skip


def is_clutter(name: str) -> bool:
    """Return whether a name is one that a system gives to its own files and folders, or hidden.

    Example:
        >>> is_clutter("._cat.jpg"), is_clutter("@eaDir"), is_clutter("cat.jpg")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in _NAMES
