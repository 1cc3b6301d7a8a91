"""A terminal of its own for a process that is about to run."""

import fcntl
import signal
import termios


def lead(hangup):
    """Makes stdin the terminal of this process, which leads its session; sets SIGHUP's handler."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, hangup)
