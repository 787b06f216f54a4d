"""Trained models as files that run without this package: StableHLO for JAX, and ONNX."""
