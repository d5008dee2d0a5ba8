"""Claims about intervals and tests, one a file, with the simulation that checks it."""
