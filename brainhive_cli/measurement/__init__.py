"""Metrics, confidence intervals and tests of decoding."""
