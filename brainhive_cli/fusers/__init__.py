"""Fusers: embeddings of a picture to what heads predict, one token [B, D] or a dict by head."""
