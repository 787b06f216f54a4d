"""Command line: `avit-jax --config avit_digits`, or `python -m avit_jax.main --config FILE`.

A run that is there knows its config: `--mode eval --workdir runs/avit_digits`. Every setting can be
changed (`--config.optim.learning_rate 1e-3`). Exit status: 0 done, 2 something the user has to put
right (one sentence says what), 69 an object store does not answer, 75 stopped by SIGTERM or Ctrl-C:
after both the same command goes on, 130 Ctrl-C in a mode that has nothing to go on with.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from avit_jax import command_line, dry_run, errors, modes
from avit_jax.config import flag_values, shared_batch
from avit_jax.errors import Preempted, UserError
from avit_jax.pretrained import hub, spelling
from avit_jax.runtime import (
    aftermath,
    cpu_devices,
    environment,
    interrupts,
    joining,
    last_word,
    plain_lines,
    store_errors,
    system_errors,
)
from avit_jax.runtime.compilation_cache import use_compilation_cache
from avit_jax.runtime.joining import initialise_processes

for kind, parser in flag_values.PARSERS.items():
    config_flags.register_flag_parser_for_type(kind, parser)
CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
MODEL = flags.DEFINE_string(
    "model", None, "A named model with all settings as they are by default, instead of --config."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run writes; runs/<config name> if unset.")
INPUT = flags.DEFINE_string(
    "input",
    None,
    "predict, visualize: an image or a folder of them; the evaluation split if unset. convert: a "
    "weight file or a workdir; --workdir if unset.",
)
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "predict, benchmark, visualize, export: where to write; into the workdir if unset. convert: a "
    "weight file, or a workdir to be; --workdir if unset.",
)
BUDGET = flags.DEFINE_list(
    "budget",
    None,
    "calibrate: what an image may cost: 0.8 (share of the dense GMACs), 2.9gmacs, 5ms (a batch of "
    "config.inference.batch_size); several with commas.",
)
OPERATING_POINT = flags.DEFINE_string(
    "operating_point",
    None,
    "all but train and calibrate: a point that --mode calibrate --budget has stored, such as 0.8.",
)
STREAM = flags.DEFINE_bool(
    "stream", False, "predict: keep programs full across batches, for images that leave early."
)
LAYOUT = flags.DEFINE_enum("layout", "timm", spelling.LAYOUTS, "convert: names in a file.")
LIMIT = flags.DEFINE_integer("limit", 48, "visualize: how many images to draw.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Say whether the command would be refused; read and write nothing."
)
MODE = flags.DEFINE_enum("mode", "train", list(modes.MODES), "What to do.")


def main(argv: list[str]) -> None:
    """Dispatch on `--mode`."""
    interrupts.raise_from_now_on()
    aftermath.keep_quiet()
    environment.print_anything(sys.stdout, sys.stderr)
    logging.set_verbosity(logging.WARNING)  # checkpointing tells its whole life otherwise
    plain_lines.print_plainly(logging.get_absl_handler())
    try:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}: every setting is a --flag.")
        if CONFIG.value is None:
            raise UserError(command_line.missing_config(MODE.value))
        if DRY_RUN.value:
            print(dry_run.checked(CONFIG.value, named_workdir(), MODE.value))
            return
        workdir = checked_workdir()
        if MODE.value in ("benchmark", "calibrate"):
            environment.start_again_prepared([sys.executable, "-m", "avit_jax.main", *sys.argv[1:]])
        environment.use_own_dtypes()
        said = command_line.said(MODE.value, CONFIG.value)
        if MODE.value == "forecast":
            environment.compute_on_cpu()
        initialise_processes(os.environ, said)
        cpu_devices.share(*shared_batch.batch_of(MODE.value, CONFIG.value))
        environment.require_device()
        joining.watch_over_others(said)
        if MODE.value != "forecast":  # nothing could be read from a program of another machine
            use_compilation_cache()
        with joining.all_end_together():
            modes.MODES[MODE.value](chosen_config(workdir), workdir, options())
        joining.leave()
    except Preempted as notice:
        logging.warning("%s; start the same command again to go on.", notice)
        joining.leave()
        sys.exit(errors.EXIT_PREEMPTED)
    except UserError as error:
        joining.refuse(error)
    except KeyboardInterrupt:
        joining.end(joining.INTERRUPTED, errors.EXIT_INTERRUPTED)
    except Exception as error:
        if (told := in_words(error)) is None:
            raise
        joining.refuse(told)


def options() -> modes.Options:
    """What the flags say that is neither config nor workdir."""
    return modes.Options(
        source=_input(),
        output=_output(),
        budget=tuple(BUDGET.value or ()),
        operating_point=OPERATING_POINT.value,
        stream=STREAM.value,
        layout=LAYOUT.value,
        limit=LIMIT.value,
        has_workdir=bool(WORKDIR.value),
    )


def in_words(error: Exception) -> UserError | None:
    """What a store or the disk refused, as a sentence; `None` for any other error."""
    told = store_errors.in_words(error, WORKDIR.value, INPUT.value, OUTPUT.value)
    said = system_errors.sentence(error) if told is None else None
    return told if said is None else UserError(said)


def chosen_config(workdir: Path) -> ConfigDict:
    """The config, with `--operating_point` in force.

    Raises:
        UserError: a flag in a mode that has no use for it, or no such point.
    """
    command_line.refuse_misplaced(
        MODE.value,
        budget=BUDGET.value,
        operating_point=OPERATING_POINT.value,
        stream=STREAM.value,
    )
    if not OPERATING_POINT.value:
        return CONFIG.value
    from avit_jax.checkpoints.operating_points import at_operating_point

    return at_operating_point(CONFIG.value, workdir, OPERATING_POINT.value)


def named_workdir() -> str:
    """The workdir as it was given, or the one by default."""
    default = command_line.default_workdir(flags.FLAGS["config"].config_filename, MODEL.value)
    return default if WORKDIR.value is None else WORKDIR.value


def checked_workdir() -> Path:
    """The workdir, once every path of the command line can be used.

    Raises:
        UserError: a path that cannot be used, or not written to.
    """
    workdir = command_line.workdir_path(named_workdir())
    _input()
    output = _output()
    if output is None or MODE.value in ("train", "eval", "calibrate", "forecast"):
        command_line.refuse_unwritable("--workdir", workdir)
    else:
        # An existing file may be one to go on with: its mode knows.
        folder = output if MODE.value == "benchmark" else output.parent
        command_line.refuse_unwritable("--output", folder)
    return workdir


def _input() -> str | None:
    """The value of `--input`; of all modes `convert` alone takes weights from the hub."""
    if not INPUT.value or (MODE.value == "convert" and INPUT.value.startswith(hub.PREFIX)):
        return INPUT.value
    return str(command_line.given_path("--input", INPUT.value))


def _output() -> Path | None:
    return command_line.given_path("--output", OUTPUT.value) if OUTPUT.value else None


def parse_flags(argv: list[str]) -> list[str]:
    """Flags of the command line; what is wrong with them becomes one sentence and status 2."""
    sys.argv[:] = flag_values.joined(sys.argv)  # where ml_collections looks for overrides
    try:
        argv = command_line.with_config(flag_values.joined(argv))
        remaining = flags.FLAGS(argv)
        command_line.checked_config(argv, CONFIG.value)
        if CONFIG.value is not None:
            flag_values.unset_tuples(flags.FLAGS["config"])
            command_line.refuse_other_model(flags.FLAGS)
        return remaining
    except command_line.PROBLEMS as error:
        told = store_errors.in_words(error)
        joining.refuse(told or UserError(command_line.one_sentence(error, argv)))


def run() -> None:
    """The console script `avit-jax`."""
    with last_word.last_of(joining.is_alone):
        app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
