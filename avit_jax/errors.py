"""The exceptions with which a command ends in good order, and what is said of single images."""

# Exit statuses of commands: something to put right; stopped, to be gone on with; ended by Ctrl-C.
EXIT_USAGE, EXIT_PREEMPTED, EXIT_INTERRUPTED = 2, 75, 130
EXIT_UNREACHABLE = 69  # an object store did not answer: the same command may do later


class UserError(ValueError):
    """Something the user can put right: what was wrong, what was found, what to write instead.

    The command line prints its sentence without a traceback and exits with `status`, 2.
    """

    status = EXIT_USAGE


class StoreUnreachable(UserError):
    """An object store did not answer: nothing is wrong with the command, which goes on later."""

    status = EXIT_UNREACHABLE


class Preempted(Exception):
    """The machine asked the command to stop; everything is saved, the same command goes on."""


# Why there is no answer for an image, where a model gives logits that are no numbers.
NOT_FINITE = "makes the model answer with numbers that are not finite"
