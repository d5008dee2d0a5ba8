"""Readers of file formats: HDF5, foreign pickles, names of pictures, BIDS labels."""
