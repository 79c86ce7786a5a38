"""How fast a model is, stage by stage, and how fast it could be."""
