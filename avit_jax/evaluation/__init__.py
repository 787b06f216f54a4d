"""How good a model is and what it costs, counted exactly over a split, and how that is shown."""
