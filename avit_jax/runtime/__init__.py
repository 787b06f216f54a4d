"""The machine that a run is on: files, processes, devices, clocks, and what is printed.

Knows nothing of images or models; any other package may use it.
"""
