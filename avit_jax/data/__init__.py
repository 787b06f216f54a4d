"""Images in, uint8 batches out: sources, decoding, augmentation and the deterministic pipeline."""
