"""A study from the command line, see `docs/studies.md`.

    python -m avit_jax.study --config configs/study/priors.py --workdir runs/study/priors

Started again it goes on where it was. Exit status: 0 all cells are finished, 1 some failed, 2
something the user has to put right, 75 stopped by SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from avit_jax.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED, EXIT_USAGE, Preempted, UserError
from avit_jax.runtime.environment import print_anything
from avit_jax.runtime.processes import preemption_notice
from avit_jax.study import places
from avit_jax.study.file import default_workdir, load
from avit_jax.study.run import Grid, listing, run

EXIT_FAILED = 1  # of some cells


def main(argv: Sequence[str] | None = None) -> None:
    """Run the study of a file, or list its cells."""
    options = _options(argv)
    print_anything(sys.stdout, sys.stderr)
    logging.basicConfig(format="%(message)s")
    # It computes nothing itself: accelerators, which are lent to one process, are the cells'.
    jax.config.update("jax_platforms", "cpu")
    try:
        study, workdir = load(options.config), options.workdir or default_workdir(options.config)
        if options.dry_run:
            print(listing(Grid.of(study, workdir), options.jobs or 1))
            return
        stop = preemption_notice()
        where = places.places(places.look(), options.jobs)
        failed = run(study, workdir, where, lambda: stop(0))
    except Preempted as notice:
        print(f"{notice}; start the same command again to go on.", file=sys.stderr)
        sys.exit(EXIT_PREEMPTED)
    except UserError as error:
        print(f"avit_jax: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        print("avit_jax: interrupted; what was saved is safe.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    if failed:
        print(
            f"avit_jax: failed: {', '.join(failed)}; read the log.txt of each, and start the same "
            "command to try them again.",
            file=sys.stderr,
        )
        sys.exit(EXIT_FAILED)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m avit_jax.study", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--config",
        required=True,
        help="a study file, with its variant: configs/study/priors.py:debug",
    )
    parser.add_argument(
        "--workdir", type=Path, help="where it writes; runs/study/<name of the file> if unset"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="cells at a time; one for each accelerator if unset, and one on a CPU, whose cores "
        "they share evenly",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="only list the cells and how far each is"
    )
    options = parser.parse_args(argv)
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs must be 1 or more")
    return options


if __name__ == "__main__":
    main()
