"""Pictures of what a model does with images: depth maps, the report of `--mode visualize`, charts.

Reads what a model says about an image and what ran; knows no method by name.
"""
