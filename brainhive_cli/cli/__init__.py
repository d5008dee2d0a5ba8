"""The commands: their flags, declared as a table, and the way from flags to recipe to
command.
"""
