"""The training of priors."""
