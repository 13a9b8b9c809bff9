"""Evaluation of trained models: logits, metrics, predictions."""
