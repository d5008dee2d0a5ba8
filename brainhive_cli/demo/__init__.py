"""The embedded world: drawn pictures, simulated recordings, small trained weights."""
