"""What workers are given to do in the tests: functions that a new process can import."""

import os
import signal

from confide.errors import TrainingError


def die_once(job, group):
    """Killed at the first call for each group; then the group's number and that of the process."""
    try:
        (job.out / f"{group.start}").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    except FileExistsError:
        pass
    return group.start, os.getpid()


def number(job, group):
    return os.getpid()


class OddError(Exception):
    """Cannot be made again from what it says."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def odd(job, group):
    raise OddError("this", "that")


def die(job, group):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(job, group):
    raise TrainingError(f"Models {group.start} to {group.stop - 1}: diverged.")


def wait(job, group):
    """Says who works, and works until it is ended from outside."""
    (job.out / "working").write_text(str(os.getpid()))
    signal.pause()
