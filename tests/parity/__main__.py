"""Prints the table of largest differences."""

from avit_jax.runtime.tables import columns
from tests.parity import adavit, avit, dvt, t2t


def main() -> None:
    """One row for each quantity of each case."""
    rows = [
        (f"{work}/{case}", d.name, f"{d.found:.1e}", f"{d.allowed:.0e}" if d.allowed else "exact")
        for work, module in {"avit": avit, "t2t": t2t, "adavit": adavit, "dvt": dvt}.items()
        for case in module.CASES
        for d in module.differences(case)
    ]
    print(columns(("case", "quantity", "largest difference", "allowed"), rows))


if __name__ == "__main__":
    main()
