"""The files that a run leaves out, since they cannot be read or decoded: path and reason, in memory and on disk."""

import os
from pathlib import Path

from dptmat.errors import UserError
from dptmat.files import Journal
from dptmat.training import distributed

QUARANTINE_FILE = "quarantine.txt"  # in the output folder: one file per line, path and reason with a tab between them


class Quarantine:
    """The bad files that are known, in all processes after ``share``.

    Args:
        report: Called with (path, reason) of each file newly found.

    Attributes:
        bad: Reason of each file, by its absolute path.
        journal: ``Journal`` to which each further file is added, or None.
    """

    def __init__(self, report):
        self.bad, self.journal = {}, None
        self._report, self._new = report, {}

    @property
    def unshared(self):
        """Number of the files that the other processes have not been told of."""
        return len(self._new)

    def add(self, path, reason):
        """Leave out a file."""
        path = os.path.abspath(path)
        if path in self.bad:
            return
        self._new[path] = reason
        self.know({path: reason})
        self._report(path, reason)

    def know(self, bad):
        """Leave out files that were named before."""
        for path in bad.keys() - self.bad.keys():
            self.bad[path] = bad[path]
            if self.journal:
                self.journal.add(f"{path}\t{bad[path]}")

    def share(self):
        """Tell all processes what each has found; all call it together."""
        for found in distributed.gather(self._new):
            for path, reason in found.items():
                self.add(path, reason)
        self._new = {}

    def too_many(self, source, largest):
        """Why the run has to stop, if more than the share ``largest`` of the files of ``source`` are bad; else ""."""
        for kind, count, of_all in source.count_bad(self.bad) if self.bad else ():
            if count > max(1, largest * of_all):
                path, reason = list(self.bad.items())[-1]
                return (
                    f"{count} of {of_all} {kind} are bad, more than --max-bad {largest:g} of them, the last one "
                    f"{path}: {reason}; restore them and remove their lines from quarantine.txt, "
                    "or allow more by --max-bad"
                )
        return ""


def open_quarantine(out, given, report, *, writes):
    """The quarantine of a run: what its ``quarantine.txt`` holds from before, and what another list says.

    Args:
        out: Output folder; it exists.
        given: Path of a list whose files are left out from the start, or "".
        report: Called with (path, reason) of each file newly found.
        writes: Whether this process is the one that writes.
    """
    path = Path(out) / QUARANTINE_FILE
    known = read(path) if path.exists() else {}
    quarantine = Quarantine(report)
    quarantine.know(known)
    quarantine.journal = Journal(path) if writes else None
    if given:
        quarantine.know(read(given))
    return quarantine


def name_bad(path, reason):
    """Print the name of a file that is left out where no log is kept."""
    print(f"left out: {path}: {reason}", flush=True)


def read(path):
    """Read a list of bad files: reasons by path.

    Raises:
        UserError: It is missing or has a line that is none of `Quarantine`.
    """
    try:
        lines = os.fsdecode(Path(path).read_bytes()).split("\n")
    except OSError as error:
        raise UserError(
            f"--quarantine {path} cannot be read: {error.strerror}; give the quarantine.txt of a run"
        ) from error
    bad = {}
    for line in lines[:-1]:  # what follows the last line end is what a kill has left of a line
        name, tab, reason = line.rpartition("\t")
        if not tab:
            raise UserError(
                f"--quarantine {path}: {line[:80]!r} is not a path, a tab and a reason; give the quarantine.txt "
                "of a run"
            )
        bad[name] = reason
    return bad
