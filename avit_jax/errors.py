"""The one exception whose message is written for the person at the keyboard."""


class UserError(ValueError):
    """Something the user can put right: what was wrong, what was found, what to write instead.

    The command line prints its sentence without a traceback and exits with status 2.
    """
