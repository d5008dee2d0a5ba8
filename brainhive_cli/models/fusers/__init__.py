"""Fusers: embeddings of a picture to the one token [B, D] that a head predicts."""
