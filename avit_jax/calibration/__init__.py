"""`--mode calibrate`: the fastest exact program, or the settings that meet a cost target.

Both are found by measuring a finished model and stored by `checkpoints`; nothing is trained, and
nothing here is needed to use what was found.
"""
