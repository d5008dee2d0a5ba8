"""Stores that commands write: targets of stimuli, and signals of subjects."""
