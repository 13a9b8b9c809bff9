"""Images: read, decoded once, kept, cropped, and made into batches."""
