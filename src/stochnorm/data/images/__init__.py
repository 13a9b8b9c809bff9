"""Reading, caching, cropping and batching of images."""
