"""Published data sets: a file for each, with all that is known of it.

Their classes are rows of the shelves `datasets` and `preparations`.
"""
