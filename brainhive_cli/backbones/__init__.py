"""Brain encoders: signal [B, C, T] to token [B, D]."""
