"""Compiled kernels for CPUs, and the layers that use them."""
