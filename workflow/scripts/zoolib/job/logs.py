"""The log of a job, its progress, and error messages for users."""

import contextlib
import errno
import logging
import os
import re
import signal
import socket
import sys
import traceback
from pathlib import Path

from tqdm import tqdm

from zoolib.job import attempts

log = logging.getLogger("zoolib")
# The turn of the job that runs in this process; None if there is no job.
_turn = None
# The temporary files in each folder that this job has written to, as they were before.
_left_overs = {}
# What the system says of a path itself (None: it is no error of the system). All its other errors are
# of the machine, and may be gone tomorrow.
OF_THE_PATH = {None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
# TensorFlow has exceptions of its own, with the system's words: "results/0.tfrecord; Stale file handle".
WORDS = {os.strerror(number): number for number in errno.errorcode}
OF_TENSORFLOW = re.compile(f"([^ ;]+); ({'|'.join(map(re.escape, WORDS))})")
OF_HDF5 = re.compile(r"filename = '([^']*)'.*?\berrno = (\d+)")


class UserError(Exception):
    """A problem that the user can fix; its message is one sentence.

    The message says which file, row or key, what was found, what was expected and what to do.
    """


class MachineError(UserError):
    """An error of the machine or of its file system, not of the user's files: a later attempt may succeed."""


def check_machine(error, path):
    """Raise a `MachineError` if an error is one of the machine, e.g. of a file system that does not answer.

    Args:
        error: any exception. Libraries make others of the system's: `zipfile` calls an archive that it cannot
            read no archive.
        path: what could not be read or written.

    Raises:
        MachineError: behind it is an `OSError` that does not say that the path itself is wrong.
    """
    for one in _chain(error):
        number, file = _of_the_system(one)
        if number not in OF_THE_PATH:
            raise MachineError(
                f"{file or path}: cannot be read or written ({os.strerror(number)}); this is an error of the"
                " machine or its file system, so type the same command again when it works."
            ) from error


def _chain(error):
    """An error and those that it was raised after."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_the_system(error):
    """The number of a system's error, and the file if a library names it; None for errors of other kinds."""
    if type(error).__module__.startswith("tensorflow."):
        found = OF_TENSORFLOW.search(str(error))
        return (WORDS[found[2]], found[1]) if found else (None, None)
    # HDF5 writes the number into its message, which h5py raises as an OSError, KeyError or RuntimeError.
    if found := OF_HDF5.search(" ".join(map(str, error.args))):
        return int(found[2]), found[1]
    # Errors of HTTP and of compression have no number.
    return (error.errno if isinstance(error, OSError) else None), None


def _may_pass(error):
    """Whether a machine's error is behind an error: a reader may have made a message of its own of it.

    A file that is not there counts too. Snakemake has seen the inputs of the job, so their disk may be away.
    """
    return any(
        isinstance(one, MachineError | MemoryError)
        or _of_the_system(one)[0] not in OF_THE_PATH - {errno.ENOENT}
        for one in _chain(error)
    )


@contextlib.contextmanager
def log_to(path):
    """Write the log of a job to a file, and its progress to the terminal too.

    An error ends the job with exit status 1 and its message as the last line of the log; the traceback is in
    `<path>.traceback`, never on the terminal. After a `UserError`, which no retry can fix, later attempts of
    the same call of Snakemake stop at once with the same message, unless an error of the machine is behind
    it. A duplicate job waits until the earlier one has ended.

    Args:
        path: the rule's log file.
    """
    global _turn
    path = Path(path)
    trace = Path(f"{path}.traceback")
    with _logging_to(path):
        turn = attempts.Turn(path)
        before = signal.signal(signal.SIGTERM, _end_by_signal)
        try:
            turn.take(log.warning)
            _turn = turn
            _left_overs.clear()
            # Not before: until its end the earlier job writes to the same log.
            os.truncate(path, 0)
            if message := attempts.fatal_message(path):
                log.error("%s", message)
                sys.exit(1)
            attempts.unmark(path)
            trace.unlink(missing_ok=True)
            yield log
        except attempts.Unfinished as error:
            log.error("%s", error)
            sys.exit(1)
        except Exception as error:
            # On a full disk these cannot be written.
            with contextlib.suppress(OSError):
                trace.write_text(traceback.format_exc())
            log.error("%s", _message_of(error, trace))
            if isinstance(error, UserError) and not _may_pass(error):
                with contextlib.suppress(OSError):
                    attempts.mark_fatal(path, str(error))
            sys.exit(1)
        finally:
            _turn = None
            with contextlib.suppress(OSError):
                turn.give_up()
            signal.signal(signal.SIGTERM, before)


def _message_of(error, trace):
    if isinstance(error, UserError):
        return str(error)
    try:
        check_machine(error, getattr(error, "filename", None) or "a file of this job")
    except MachineError as found:
        return str(found)
    for one in _chain(error):
        if isinstance(one, FileNotFoundError) and one.filename:
            return (
                f"{one.filename}: is not there, but Snakemake has seen all files that this job needs; if the"
                " folder is away, type the same command again when it is back."
            )
    message = " ".join(str(error).split())[:300]
    return f"unexpected {type(error).__name__}: {message} (traceback in {trace})"


@contextlib.contextmanager
def _logging_to(path):
    """Send log lines to a file and to the terminal, and what libraries print to the file alone."""
    # C++ libraries write to the file descriptor, not to sys.stderr.
    sys.stderr.flush()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        sys.exit(f"{path}: the log of this job cannot be written ({error.strerror}); the job has not begun.")
    terminal = os.dup(2)
    with open(path, "a") as file:
        os.dup2(file.fileno(), 2)
    screen = os.fdopen(terminal, "w")
    handlers = [logging.FileHandler(path), logging.StreamHandler(screen)]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(handlers[0])
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        logging.getLogger("py.warnings").handlers.clear()
        os.dup2(terminal, 2)
        screen.close()


def _end_by_signal(*_):
    """End the job; not by an exception that could be taken for a bad image: `SystemExit` is never caught."""
    # Processes that the job has forked have this handler too, and get the signal too.
    if _turn is None or os.getpid() == _turn.job["pid"]:
        log.error("Ended from outside (cancelled, preempted, or out of time): the next attempt continues.")
    sys.exit(128 + signal.SIGTERM)


class _LogLines:
    """The file that tqdm writes to: each state of its meter becomes a log line."""

    def write(self, text):
        if text.strip():
            log.info("%s", text.strip())

    def flush(self):
        pass


def progress(iterable, what, total=None, unit="galaxies", every=10.0):
    """Iterate, and log the progress: how much is done, how fast, and how long the rest will take.

    Args:
        iterable: what to iterate over.
        what: what is being done, e.g. "writing shard 3".
        total: number of items, if `iterable` has no length.
        unit: what is counted.
        every: seconds between two log lines.

    Returns:
        The tqdm iterator; used as a context manager, it counts by `update(n)`.
    """
    return tqdm(
        iterable,
        desc=what,
        total=total,
        unit=f" {unit}",
        unit_scale=unit == "B",
        file=_LogLines(),
        mininterval=every,
        maxinterval=every,
        leave=False,
        delay=every,
        ascii=True,
        bar_format="{desc}: {n_fmt} of {total_fmt} ({percentage:.0f} %), {rate_fmt}, {remaining} left",
    )


@contextlib.contextmanager
def whole(path):
    """Write a file under a temporary name and rename it when it is complete.

    Args:
        path: the final name; its folder is made.

    Yields:
        The temporary path to write to, in the same folder and with the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two machines may have the same process number.
    partial = path.with_name(f".{os.getpid()}.{socket.gethostname()}.{path.name}")
    for left_over in _left_over_in(path.parent):
        if left_over.endswith(f".{path.name}"):
            (path.parent / left_over).unlink(missing_ok=True)
    try:
        yield partial
        if _turn:
            _turn.check()
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _left_over_in(folder):
    """The temporary files in a folder.

    One job at a time has the turn to write a file: its temporary file is from a job that was killed before
    this one began. So a job lists a folder once, not for each of the 100,000 images that it writes there.
    """
    if folder in _left_overs:
        return _left_overs[folder]
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if entry.name[:1] == "." and entry.name[1:2].isdigit()]
    if _turn:
        _left_overs[folder] = found
    return found
