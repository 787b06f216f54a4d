"""Streams of images through a model that many leave early: programs whose batches stay full.

Knows a model only as a tuple of segments (`segment.py`), and nothing of methods.
"""
