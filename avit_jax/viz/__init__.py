"""Pictures of what a model learnt."""
