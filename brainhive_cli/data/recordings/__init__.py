"""Recordings of EEG and MEG: files, tables, headers, channels and events."""
