"""The one error that the command turns into a line instead of a traceback, and what others have to say in a line."""


class UserError(ValueError):
    """Something that the user can mend; the message says what was given, what was expected and what to do.

    Parameters of Python functions stand in it between backticks; the command writes them as its options.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of another library says, of 200 characters at most, or its type's name."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
