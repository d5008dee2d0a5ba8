"""Published data sets, a file each, which holds all that is known of one; and what
several of them share.

Their classes are rows of the shelves `datasets` and `preparations`.
"""
