"""Stimuli through frozen encoders into target stores."""
