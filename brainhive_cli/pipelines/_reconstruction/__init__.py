"""The drawing of what was seen, and its measure."""
