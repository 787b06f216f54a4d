"""The machine that a run is on: files, processes, devices, clocks, and what is printed."""
