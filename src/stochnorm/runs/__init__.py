"""One run: settings, directory, records, trackers, hardware."""
