"""``python -m dptmat``: the command, such as torchrun starts it."""

from dptmat.cli import main

if __name__ == "__main__":
    main()
