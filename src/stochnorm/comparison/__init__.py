"""Comparisons: a grid of runs, what is missing of it, and who does the runs."""
