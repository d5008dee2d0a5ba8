"""Recipes, their keys, and the parts that they name."""
