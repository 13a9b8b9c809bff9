"""Check whether the statistics of a backbone suit a data set."""
