"""Opening of image files, the only place that does: a damaged image is told apart from an unreadable disk."""

from __future__ import annotations

import errno
import io
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from stochnorm.data.images.decoding.formats import readers, what_it_is
from stochnorm.errors import ran_out

__all__ = ["DamagedImageError", "opened"]

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_PILLOWS = re.compile(r"PIL\.")
_HEAD = 1024  # bytes that tell what a file is


class DamagedImageError(ValueError):
    """Error for a file that is there and can be read, but not as an image; or that is not there."""

    @classmethod
    def of(cls, path: Path, reason: str) -> DamagedImageError:
        """Return the error that names the file and the reason."""
        return cls(f"{path}: cannot be read as an image ({reason})")


@contextmanager
def opened(path: Path, *, head: bool = False) -> Iterator[Image.Image]:
    """Open an image file for the block, which decodes and converts it.

    The file is read before it is decoded, so that no error of the disk looks like damage, and a file that is cut
    meanwhile does no harm. Pillow's warnings, which do not name the file, are ignored from the first call on.

    Args:
        path: The file, in one of the formats of [stochnorm.data.images.decoding.formats][], whatever its name says.
        head: Read only what the block needs, for its size.

    Raises:
        DamagedImageError: The file is no image, or is damaged, also if that shows in the block; or there is no file.
        OSError: The system cannot read the file (permission, disk), or there is too little memory for the image.
    """
    with _readable(path, head=head) as file:
        image = None
        try:
            _ignore_pillows_warnings()
            with Image.open(file, formats=readers()) as image:
                yield image
        except UnidentifiedImageError as error:
            file.seek(0)
            raise DamagedImageError.of(path, what_it_is(file.read(_HEAD))) from error
        except Exception as error:  # decoders raise errors of any kind for damaged data
            if ran_out(error):
                size = "" if image is None else f" of {image.width:,} x {image.height:,} pixels"
                raise OSError(errno.ENOMEM, f"not enough memory to decode an image{size}", str(path)) from error
            if head and isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise _of_disk(path, error) from error
            raise DamagedImageError.of(path, " ".join(str(error).split()) or type(error).__name__) from error


@contextmanager
def _readable(path: Path, *, head: bool) -> Iterator[IO[bytes]]:
    """Open a file, or its bytes."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            raise DamagedImageError.of(path, "it is a folder or a device, not a file")
        file: IO[bytes] = path.open("rb") if head else io.BytesIO(path.read_bytes())
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "not enough memory to read an image file", str(path)) from error
    except OSError as error:
        if error.errno in _MISSING:
            raise DamagedImageError.of(path, (error.strerror or str(error)).lower()) from error
        raise _of_disk(path, error) from error
    with file:
        yield file


def _of_disk(path: Path, error: OSError) -> OSError:
    """Return the error of a disk, of the same class, with what to do."""
    reason = f"cannot read an image file ({error.strerror or error}); check its permissions and the disk"
    return OSError(error.errno, reason, str(path))


def _ignore_pillows_warnings() -> None:
    """Ignore what Pillow warns of in any file, in all threads: odd metadata, and images above half of its limit."""
    if not warnings.filters or warnings.filters[0][3] != _PILLOWS:  # not each time: it makes others be shown again
        warnings.filterwarnings("ignore", module=_PILLOWS.pattern)
