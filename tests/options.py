"""Options as the words of a command line."""


def as_words(options):
    """``{"batch_size": 4}`` as ``["--batch-size", "4"]``; an option that is None is left out."""
    given = ((f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None)
    return [word for pair in given for word in pair]
