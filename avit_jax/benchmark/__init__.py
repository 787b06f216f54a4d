"""`--mode benchmark`: how fast the executions of one model are, compared in turns.

Asks a method through the contract alone, for its executions and its synthetic profiles; knows no
method by name.
"""
