"""The one error that the command turns into a line instead of a traceback, and what others have to say in a line."""


class UserError(ValueError):
    """Something that the user can mend; the message says what was given, what was expected and what to do.

    Parameters of Python functions stand in it between backticks; the command writes them as its options.
    """


class StoreAwayError(OSError):
    """A store that does not answer, or refuses for now: it says nothing of the object that was asked for."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of another library says, of 200 characters at most, or its type's name."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def few(names: list[str]) -> str:
    """Join the first three of some names, and count the others: "a, b, c and 4 more"; each in one line, and short."""
    shown = [name[:200] if name.isprintable() else ascii(name[:200]) for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
