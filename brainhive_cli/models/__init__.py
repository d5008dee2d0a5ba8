"""Vision encoders, brain models, fusers, losses, priors and generators: shelves, and
what parts share.
"""
