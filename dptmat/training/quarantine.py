"""The files that a run leaves out, since they cannot be read or decoded: path and reason, in memory and on disk."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from dptmat.errors import UserError
from dptmat.file_kinds import HEAD, name_kind
from dptmat.files import Journal
from dptmat.pipelines.source import Source
from dptmat.training import distributed

_logger = logging.getLogger(__name__)

QUARANTINE_FILE = "quarantine.txt"  # in the output folder: one file per line, path and reason with a tab between them


def name_bad(path: str, reason: str) -> None:
    """Name a file that is left out where no log is kept."""
    _logger.warning("left out: %s: %s", path, reason)


class Quarantine:
    """The bad files that are known, in all processes after ``share``.

    Args:
        report: Called with (path, reason) of each file newly found.
        known: Reason of each file that was named before, by its absolute path.
        journal: Journal to which each further file is added.

    Attributes:
        bad: Reason of each file, by its absolute path.
    """

    def __init__(
        self,
        report: Callable[[str, str], object] = name_bad,
        known: Mapping[str, str] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.bad: dict[str, str] = dict(known or {})
        self._report, self._journal = report, journal
        self._unshared: dict[str, str] = {}

    @property
    def unshared(self) -> int:
        """Number of the files that the other processes do not know of."""
        return len(self._unshared)

    def add(self, name: str, reason: str) -> None:
        """Leave out a file by its absolute path, or a photograph in a shard by its name, and report it."""
        if name in self.bad:
            return
        self._unshared[name] = reason
        self.mark_known({name: reason})
        self._report(name, reason)

    def mark_known(self, bad: Mapping[str, str]) -> None:
        """Leave out files that were named elsewhere, without a report."""
        for path in bad.keys() - self.bad.keys():
            self.bad[path] = bad[path]
            if self._journal:
                self._journal.add(f"{path}\t{bad[path]}")

    def share(self) -> None:
        """Exchange what each process has found; all call it together."""
        for found in distributed.gather(self._unshared):
            for path, reason in found.items():
                self.add(path, reason)
        self._unshared = {}

    def too_many(self, source: Source, largest: float) -> str:
        """Say why the run has to stop, if more than the share ``largest`` of the source's files are bad; else ""."""
        for kind, count, of_all in source.count_bad(self.bad) if self.bad else ():
            if count > max(1, largest * of_all):
                path, reason = list(self.bad.items())[-1]
                return (
                    f"{count} of {of_all} {kind} are bad, more than `max_bad` {largest:g} of them, the last one "
                    f"{path}: {reason}; restore them and remove their lines from {QUARANTINE_FILE}, or allow more by "
                    "`max_bad`"
                )
        return ""


def open_quarantine(
    out: str | Path, given: str, report: Callable[[str, str], object], source: Source, *, writes: bool
) -> Quarantine:
    """Open the quarantine of a run: what its ``quarantine.txt`` holds from before, and what another list says.

    Args:
        out: Output folder; it exists.
        given: Path of a list whose files are left out from the start, or "".
        report: Called with (path, reason) of each file newly found.
        source: The run's data, whose files alone are taken from the other list.
        writes: Whether this process is the one that writes.

    Raises:
        UserError: One of the lists cannot be read.
    """
    path = Path(out) / QUARANTINE_FILE
    known = read_quarantine(path) if path.exists() else {}
    further = source.own(read_quarantine(given)) if given else {}
    quarantine = Quarantine(report, known, Journal(path) if writes else None)
    quarantine.mark_known(further)
    return quarantine


def read_quarantine(path: str | Path) -> dict[str, str]:
    """Read a list of bad files: reasons by path.

    Raises:
        UserError: It is missing or has a line that is not a path, a tab and a reason.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"the list of bad files {path} cannot be read: {error.strerror}; `quarantine` takes the {QUARANTINE_FILE} "
            "of a run"
        ) from error
    kind = name_kind(content[:HEAD])
    if b"\0" in content or kind not in ("", "empty", "text"):
        raise UserError(
            f"the list of bad files {path} is {kind or 'no text'}; `quarantine` takes the {QUARANTINE_FILE} of a run"
        )
    bad = {}
    lines = os.fsdecode(content).split("\n")
    for line in lines[:-1]:  # what follows the last line end is what a kill has left of a line
        name, tab, reason = line.rpartition("\t")
        if not tab:
            raise UserError(
                f"the list of bad files {path} has a line that is not a path, a tab and a reason: {line[:80]!r}; "
                f"`quarantine` takes the {QUARANTINE_FILE} of a run"
            )
        bad[name] = reason
    return bad
