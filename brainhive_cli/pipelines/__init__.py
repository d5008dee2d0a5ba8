"""One file a subcommand: its Recipe and run."""
