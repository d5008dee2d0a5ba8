"""Fuzzes Brainhive: mutated recipes, damaged files, hostile files, and kills at random
moments.
"""
