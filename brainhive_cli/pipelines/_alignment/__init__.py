"""The training of brain encoders, cell by cell."""
