"""Preparations: the steps from raw recordings to the trials of each session.

The contract is in `data/recordings/contract.py`. Preparations of published data sets
are rows of this shelf: their classes are in `data/published`.
"""
