"""Inference that leaves skipped work out, whatever the method: live work only."""
