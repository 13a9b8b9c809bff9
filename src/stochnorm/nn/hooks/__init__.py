"""Read from a model, or change it for a while, while it runs."""
