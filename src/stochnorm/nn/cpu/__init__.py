"""Compiled kernels for CPUs, and the layers that call them."""
