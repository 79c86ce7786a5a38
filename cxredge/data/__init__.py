"""Data sets on disk, and what is checked of them before training."""
