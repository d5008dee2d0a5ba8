"""Retrieval, image quality and their statistics."""
