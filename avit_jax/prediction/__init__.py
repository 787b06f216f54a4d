"""`--mode predict`: one line for every image, in order, whatever happens on the way."""
