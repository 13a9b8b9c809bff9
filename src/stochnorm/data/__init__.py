"""Labelled images: where they are, how they are divided, and how they are read."""

from stochnorm.data.images.batches import Split
from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.data.images.store import ImageStore
from stochnorm.data.inventory import Report
from stochnorm.data.labels import encode_labels
from stochnorm.data.lists import export_lists, read_lists
from stochnorm.data.manifest import Row, Source, findings, format_manifest
from stochnorm.data.published.catalogue import DATASETS
from stochnorm.data.published.dataset import DataSet
from stochnorm.data.published.download import download
from stochnorm.data.source import check_classes, list_images, read_images, read_source
from stochnorm.data.splits import assign_splits
from stochnorm.data.verify import verify

__all__ = [
    "DATASETS",
    "DataSet",
    "ImageStore",
    "Preprocessing",
    "Report",
    "Row",
    "Source",
    "Split",
    "assign_splits",
    "check_classes",
    "download",
    "encode_labels",
    "export_lists",
    "findings",
    "format_manifest",
    "list_images",
    "read_images",
    "read_lists",
    "read_source",
    "verify",
]
