"""Batches in, weights and predictions out."""
