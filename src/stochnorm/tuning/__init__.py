"""Hyper-parameter search on validation images."""
