"""Preparations, which turn raw recordings into the trials of each session.

The contract is in `data/recordings/contract.py`. Preparations of published data sets
are rows of this shelf, and their classes are in `data/published`.
"""
