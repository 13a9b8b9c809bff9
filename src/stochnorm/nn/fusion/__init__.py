"""Normalization that runs in one pass with the residual addition and the activation behind it, on GPUs."""
