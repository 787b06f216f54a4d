"""Faults injected into real runs, and what has to become of each: `python -m tests.survival`.

After a fault a run ends bit-identical to the undisturbed one, or stops with one sentence and
nothing earlier is lost, or goes on and says what it lacks. Anything else is a failure.
"""
