"""`--mode calibrate`: the fastest exact program, or the settings that meet a budget."""
