"""One run: from settings to a tested model."""
