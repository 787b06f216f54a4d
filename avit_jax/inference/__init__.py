"""Inference that leaves skipped work out: the same blocks, run on live tokens only."""
