"""What a model is held to beside its own penalties: the labels, and the answers of a teacher.

A method's own losses lie in its folder.
"""
