"""Comparisons: a grid of runs, the queue of missing runs, and the executors that do them."""
