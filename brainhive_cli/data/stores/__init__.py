"""HDF5 stores of targets and of signals, and the safe reading of files that others
wrote.
"""
