"""Base of every layer: recipes, parts, runs, launch, console and errors."""
