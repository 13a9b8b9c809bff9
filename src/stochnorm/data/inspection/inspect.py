"""The inspection of a set of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from stochnorm.data.images.ahead import map_ahead
from stochnorm.data.images.readable import THREADS, Track
from stochnorm.data.inspection.alike import copied_images
from stochnorm.data.inspection.findings import KINDS, Finding, format_findings
from stochnorm.data.inspection.look import Look, look_at
from stochnorm.data.inspection.single import odd_images
from stochnorm.data.inspection.whole import odd_classes, shortcuts
from stochnorm.data.inventory import counts
from stochnorm.data.manifest import Source
from stochnorm.data.source import list_images
from stochnorm.text import count, some, tally

__all__ = ["Inspection", "inspect_data"]


@dataclass(frozen=True)
class Inspection:
    """What was found in a set of images."""

    source: Source
    """The images."""
    findings: list[Finding]
    """What is wrong or odd, the most important kinds first."""
    cameras: dict[str, int] = field(default_factory=dict)
    """Number of images by camera, the commonest first; only of those whose EXIF data name one."""

    @property
    def name(self) -> str:
        """Short name of the data: that of its folder or file; for `manifest.csv` that of the folder around it."""
        return self.source.root.name if self.source.name == "manifest" else self.source.name

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind, in the order of KINDS; kinds without one are left out."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def of(self, kind: str) -> list[Finding]:
        """Return the findings of a kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def failed(self, kinds: Collection[str]) -> dict[str, int]:
        """Return the number of findings of each of some kinds that were found; `any` is all of them."""
        return {kind: n for kind, n in self.counts.items() if kind in kinds or "any" in kinds}

    def csv(self) -> str:
        """Return the findings as CSV text, a row each."""
        return format_findings(self.findings)

    def lines(self) -> list[str]:
        """Return the summary: what was inspected, and a line for each kind that was found."""
        lines = [f"{self.name}: {tally(counts(self.source))}"]
        for kind, n in self.counts.items():
            examples = [_words(finding) for finding in self.of(kind)]
            lines.append(f"{kind}: {n:,}  {some(examples, 2)}")
        if not self.findings:
            lines.append("nothing found")
        if self.cameras:
            named = [f"{name} ({n:,})" for name, n in self.cameras.items()]
            lines.append(f"{count(len(self.cameras), 'camera')} by EXIF: {some(named, 3)}")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def inspect_data(data: str | Path, *, track: Track | None = None) -> Inspection:
    """Look at each image of a set once, and tell what is wrong with them before any training.

    See [stochnorm.data.inspection.findings.KINDS][] for what is looked for. 10,000 photographs take some minutes on two
    cores.

    Args:
        data: Folder with a folder per class, CSV manifest, folder of a published data set, or name of one.
        track: Progress display.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The images are not in a known layout.
        OSError: The system cannot read an image's file.

    Example:
        >>> print(inspect_data("photos"))  # doctest: +SKIP
        photos: 5 classes, 400 images
        duplicate: 3  red/004.jpg = red/001.jpg, red/007.jpg = red/002.jpg and 1 more
    """
    source = list_images(data)
    paths = [source.root / row.path for row in source.rows]
    ready = map_ahead(look_at, paths, threads=THREADS, ahead=4 * THREADS)
    looks: list[Look | str] = list(
        ready if track is None else track(ready, description="Looking at images", total=len(paths))
    )
    found = [
        *odd_images(source.rows, looks),
        *copied_images(source.root, source.rows, looks),
        *odd_classes(source),
        *shortcuts(source, looks),
    ]
    order = list(KINDS)
    found.sort(key=lambda finding: order.index(finding.kind))  # stable: by image within a kind
    cameras = Counter(look.camera for look in looks if isinstance(look, Look) and look.camera)
    return Inspection(source, found, dict(cameras.most_common()))


def _words(finding: Finding) -> str:
    if finding.image is None:
        return finding.value
    if finding.other is None:
        return f"{finding.image.path} ({finding.value})"
    labels = [
        f" ({row.label or 'none'})" if finding.kind == "contradiction" else "" for row in (finding.image, finding.other)
    ]
    return f"{finding.image.path}{labels[0]} = {finding.other.path}{labels[1]}"
