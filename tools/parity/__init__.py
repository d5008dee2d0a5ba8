"""Whole trainings of our recipes beside those of their authors' code, on planted data.

`python -m tools.parity` trains, and prints the table. `--export` and `--import` add the
figures of an author's checkout.
"""
