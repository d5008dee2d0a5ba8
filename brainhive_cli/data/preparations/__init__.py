"""Preparations: from raw recordings to the trials of a session, by split.

Private files begin with the name of the part that they belong to (`_recording_…`).
Those of published data sets are rows: they stand with all else of the set in
`data/published`.
"""
