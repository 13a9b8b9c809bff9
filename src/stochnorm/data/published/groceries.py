"""Groceries: 336 photographs of twelve kinds of fruit, which are installed with stochnorm.

A part of the Grocery Store data set: Klasson, Zhang, Kjellström, *A Hierarchical Grocery Store Image Dataset with
Visual and Semantic Labels*, WACV 2019. MIT licence; `data/groceries/README.md` says how the part was made.
"""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.folder import read_folder
from stochnorm.data.published.dataset import DataSet

__all__ = ["GROCERIES", "demo_images"]


def demo_images() -> Path:
    """Return the folder of the images: train/ and test/, with a folder per kind."""
    return Path(__file__).parents[1] / "groceries"


GROCERIES = DataSet(
    name="groceries",
    title="Groceries",
    subject="photographs of groceries",
    counts={"classes": 12, "images": 336, "train": 216, "test": 120},
    licence="MIT",
    homepage="https://github.com/marcusklasson/GroceryStoreDataset",
    files=(),
    obtain="it is installed with stochnorm: use groceries as DATA",
    installed=demo_images,
    list_images=read_folder,
    image_folders=lambda root: ["."],
)
