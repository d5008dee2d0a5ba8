"""The tests; a package, so that another package of this name is not imported for it."""
