"""Statistics of a data set against those that a backbone inherited."""
