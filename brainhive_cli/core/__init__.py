"""What every layer uses: recipes, parts, runs, launch, console and errors."""
