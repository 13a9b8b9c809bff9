"""Tasks, metrics, logits, and the evaluation of a trained model."""
