"""From recordings to arrays."""
