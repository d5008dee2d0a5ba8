"""The training of Fusion Priors."""
