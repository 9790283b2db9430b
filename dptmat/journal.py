"""Lines added to a file as they come; on a full disk they wait for room."""

import os


class Journal:
    """A file that grows by lines; what cannot be written is kept, tried again with the next line, and said once.

    Args:
        path: The file; made if it is missing.
    """

    def __init__(self, path):
        self._path, self._waiting, self._failed = path, b"", False
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def add(self, line):
        """Add a line, without its end; names of files in it need not be valid text."""
        self._waiting += os.fsencode(line) + b"\n"
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]
        except OSError as error:
            if not self._failed:
                print(f"{self._path} cannot be written: {error.strerror}; its lines wait for room", flush=True)
            self._failed = True
        else:
            self._failed = False

    def close(self):
        os.close(self._descriptor)
