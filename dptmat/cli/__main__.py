"""``python -m dptmat.cli``: the command, as ``python -m dptmat``."""

from dptmat.cli import main

if __name__ == "__main__":
    main()
