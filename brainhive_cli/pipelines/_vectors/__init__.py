"""Vectors that others made, to and from stores."""
