"""Ways to run a finished model: the list of executions, and what those that skip work are made of.

Works on `Usage` and on the blocks of `models`; which method decided what to skip is not known here.
"""
