"""Weights that other programs have written or are to read: formats, names, layouts, other sizes.

Nothing in a weight file is ever executed.
"""
