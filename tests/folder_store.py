"""A folder as a store, read by seek and read, that counts what is asked of it."""

from pathlib import Path


class FolderStore:
    """What `dptmat.data.containers` needs of a store; ``remote`` is what it is told, whatever is true."""

    def __init__(self, folder, *, remote=False):
        self.url, self.remote = str(folder), remote
        self.requests = []  # (offset, length) of each

    def read(self, name, offset=0, length=None):
        with open(Path(self.url) / name, "rb") as file:
            file.seek(offset)
            content = file.read() if length is None else file.read(length)
        self.requests.append((offset, len(content)))
        if length is not None and len(content) < length:
            raise OSError(f"{self.url}/{name} was cut short")
        return content

    def size(self, name):
        return (Path(self.url) / name).stat().st_size
