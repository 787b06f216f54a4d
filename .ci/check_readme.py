"""Fails when the README no longer holds the two commands that CI runs."""

import sys
from pathlib import Path

COMMANDS = (
    "pip install -e . && python -m avit_jax.main --config configs/avit_digits.py",
    "pip install -e '.[test]' && pytest",
)


def main(readme: Path) -> None:
    """Ends with a sentence that names every command missing from `readme`."""
    if not readme.exists():
        sys.exit(f"there is no {readme}; write one that holds {' and '.join(COMMANDS)}")
    text = readme.read_text(encoding="utf-8")
    missing = [command for command in COMMANDS if command not in text]
    if missing:
        sys.exit(
            f"{readme} lacks the command {' and '.join(missing)}; write it there as it is here"
        )
    print(f"{readme} holds both commands")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
