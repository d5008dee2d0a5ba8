"""The training of brain models and of priors."""
