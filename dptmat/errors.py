"""The one error that the command turns into a line instead of a traceback."""


class UserError(ValueError):
    """Something that the user can mend; the message says what was given, what was expected and what to do."""
