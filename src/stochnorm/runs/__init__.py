"""One run: settings, directory, records, predictions, trackers, hardware."""
