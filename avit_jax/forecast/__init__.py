"""`--mode forecast`: what a run will need on machines that are not there, from their compilers.

Both compilers, for TPUs and for NVIDIA GPUs, run on a plain CPU. Nothing is computed, no data are
opened and no weights loaded; what is said is read from shapes and compiled programs, and named as
the estimate that it is.
"""
