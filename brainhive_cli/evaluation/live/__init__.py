"""Live decoding: what a person sees, while they see it."""
