"""Publish files on the Hugging Face Hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["check_repository", "push"]

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_PART}/{_PART}")


def check_repository(name: str) -> None:
    """Raise ValueError unless a name is OWNER/NAME, before long work."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"--push needs the name of a repository such as me/photos, got {name!r}")


def push(paths: Sequence[Path], card: str, repository: str, *, public: bool = False) -> str:
    """Upload exported files and their model card, and return the address.

    The account is that of `hf auth login`, or of the environment variable HF_TOKEN; stochnorm never sees the token.

    Args:
        paths: Files, and folders of format timm, whose content goes to the top.
        card: The card, `README.md`.
        repository: OWNER/NAME; it is made if there is none.
        public: Let everyone see a new repository; by default it is private.

    Raises:
        OSError: The Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    check_repository(repository)
    api = HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        for path in paths:
            if path.is_dir():
                shutil.copytree(path, staged, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, staged / path.name)
        (staged / "README.md").write_text(card, encoding="utf-8")
        try:
            api.create_repo(repository, private=not public, exist_ok=True)
            done = api.upload_folder(
                repo_id=repository, folder_path=str(staged), commit_message="Model exported by stochnorm"
            )
        except (HfHubHTTPError, OSError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise OSError(
                f"could not push to {repository} ({first}); log in with: hf auth login. The exported files are there"
            ) from error
    return str(getattr(done, "repo_url", "") or f"https://huggingface.co/{repository}")
