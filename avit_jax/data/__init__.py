"""Images in, uint8 batches out: sources, decoding, augmentation and the deterministic pipeline.

Knows nothing of models: a batch depends on the source, the step and the seed alone.
"""
