"""Trainings of our recipes and of their authors' code on the same planted data.

`python -m tools.parity` trains, and prints the table. `--export` and `--import` add the
figures of an author's checkout.
"""
