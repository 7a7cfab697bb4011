"""How a model is learned: one file per algorithm."""
