"""Evaluation of trained models: retrieval, reconstruction and explanation."""
