"""Stub."""
def compact(model, network, images, exists, plan):
    raise NotImplementedError
def gmacs(model, usage, plan):
    raise NotImplementedError
