"""Alignment of brain signals with embeddings: recipes, training, trained models."""
