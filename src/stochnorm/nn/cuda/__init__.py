"""Stochastic Normalization on GPUs."""
