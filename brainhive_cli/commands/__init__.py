"""One thin file a subcommand: flags to recipe to pipeline."""
