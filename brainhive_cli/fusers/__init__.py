"""Several embeddings of a picture to one token."""
