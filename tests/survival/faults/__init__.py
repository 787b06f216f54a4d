"""One module for each kind of fault, with `FAULTS`; `suite.faults` finds them by themselves."""
