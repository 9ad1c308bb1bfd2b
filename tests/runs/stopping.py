"""Commands that are stopped in the middle of their work, in processes that are forked.

A program that imports what the commands need and then calls these functions pays for the imports
once.  It computes nothing itself: threads do not survive a fork.
"""

import os
import signal
import sys


def start(name, *arguments, prepare=lambda: None):
    """Begin a command whose output goes to NAME.stdout and NAME.stderr; its process id."""
    pid = os.fork()
    if pid:
        return pid
    from confide.cli import main

    for stream, kind in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{name}.{kind}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
    sys.argv = ["confide", *arguments]
    # A shell in the background has its children ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        prepare()
        main()
    except SystemExit as stop:
        os._exit(stop.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # as the interpreter would
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(70)


def ended(pid):
    """The exit code, or minus the signal, and the seconds of processor that were used."""
    _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def call(name, *arguments):
    """Run a command to its end; its exit code."""
    return ended(start(name, *arguments))[0]


def killed(name, *arguments, done, n_more=0, seconds=0.0):
    """Whether a command died when it was killed, so long after so many more things are done.

    `done` counts them.  The process ends itself: nobody has to watch, so that a busy machine cannot
    miss the instant.  Seconds are of its processor, and stand still while others have it.
    """

    def die():
        if seconds:  # ends the process in the middle of anything, as SIGKILL would
            signal.setitimer(signal.ITIMER_PROF, seconds)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    code, _ = ended(start(name, *arguments, prepare=lambda: _after(n_more, done, die)))
    return code in (-signal.SIGKILL, -signal.SIGPROF)


def stopped(number, name, *arguments, done, n_more):
    """The exit code of a command that is sent a signal when so many more things are done."""

    def stop():
        os.kill(os.getpid(), number)

    return ended(start(name, *arguments, prepare=lambda: _after(n_more, done, stop)))[0]


def _after(n_more, done, act):
    """Act when so many more things are done: what is finished is renamed into its place."""
    if not n_more:
        act()
        return
    wanted, replace = done() + n_more, os.replace

    def replaced(*arguments, **named):
        replace(*arguments, **named)
        if done() >= wanted:
            os.replace = replace
            act()

    os.replace = replaced
