"""Other people's weights: names and layouts."""
