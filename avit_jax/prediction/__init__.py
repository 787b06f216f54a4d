"""`--mode predict`: one line for every image, in order, complete after any interruption."""
