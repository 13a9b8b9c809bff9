"""Algorithm 1 on CUDA devices."""
