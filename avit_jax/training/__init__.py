"""From a config to a trained model, through every interruption: loop, step and optimiser."""
