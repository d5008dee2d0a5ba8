"""Exchange with other programs: vectors, results and saved sessions."""
