"""Backbones and the layers they are made of, as modules and as pure functions; their costs.

A block takes `Gates` and computes what they leave; who decides them is not known here.
"""
