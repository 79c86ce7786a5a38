"""Runs over many radiographs: which files, under which names, what is written, what is remembered for the next time."""
