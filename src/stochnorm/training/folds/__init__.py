"""K-fold cross-validation: an estimate from all images, and a model for use."""
