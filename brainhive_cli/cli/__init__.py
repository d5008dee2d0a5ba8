"""Command-line interface: the table of commands, and their execution."""
