"""Comparison with numbers recorded from the published implementations (`tests/golden`).

`python -m tests.parity` prints the table of largest differences; `test_parity.py` asserts it. One
file for each published work says which cases there are (`CASES`) and compares one of them
(`differences`). The recorded files hold weights, inputs, what lies between, losses and gradients.
"""
