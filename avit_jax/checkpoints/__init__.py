"""What a run keeps in its workdir, how it is checked, and where weights are taken from.

States with their SHA-256 manifests, what calibration has found, and the choice between a run's
weights and those of a file. Knows nothing of losses, optimisers or modes.
"""
