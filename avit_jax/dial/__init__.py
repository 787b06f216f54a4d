"""One dial for the budget: settings of a trained model that meet one, found without training."""
