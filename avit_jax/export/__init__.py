"""Trained models for use elsewhere: StableHLO, ONNX, and weight files of other programs."""
