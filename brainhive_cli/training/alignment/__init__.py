"""The training of brain models, and finished runs opened to be used."""
