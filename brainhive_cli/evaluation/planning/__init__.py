"""Planning of a recording: its power, and the order in which pictures are shown."""
