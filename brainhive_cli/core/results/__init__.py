"""Metrics and facts of runs, and the data of their figures."""
