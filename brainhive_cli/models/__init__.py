"""Encoders, backbones, fusers, losses, priors and generators."""
