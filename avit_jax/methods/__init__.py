"""Methods of adaptive computation, one file or folder each; `base.py` says what one consists of."""
