"""Fuzzes Brainhive: mutated recipes, damaged files, hostile files, and kills at random
moments. Run it by `python -m tests.soak`. pytest does not collect it.
"""
