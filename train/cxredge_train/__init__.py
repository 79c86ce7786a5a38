"""The trainer: networks and losses of Oh & Ye (ECCV 2022), from radiographs to a checkpoint."""
