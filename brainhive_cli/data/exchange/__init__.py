"""Embeddings in the formats of other projects, in and out."""
