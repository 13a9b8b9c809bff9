"""Published data sets in their official formats."""
