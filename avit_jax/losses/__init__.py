"""What a model is trained on beside its own penalties: the labels, and a teacher."""
