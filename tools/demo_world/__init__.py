"""The program that trains the weights of the embedded world: not in the wheel, users
never need it.
"""
