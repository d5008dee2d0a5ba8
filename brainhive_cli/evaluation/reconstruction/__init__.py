"""Stimuli reconstructed from brain signals, and how like they are."""
