"""One file a subcommand: its Recipe, its plan and its run."""
