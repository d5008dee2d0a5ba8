"""Stimuli, recordings and targets: from files of publishers and stores to the tensors
that models take.
"""
