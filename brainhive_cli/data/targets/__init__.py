"""Targets of training: stimuli through frozen encoders into stores, and stores opened
for a recipe.
"""
