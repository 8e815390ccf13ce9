"""pycolmap without its log and its handlers of signals to stop.

Its import replaces the process's handler of SIGTERM by one that aborts with a stack trace.
"""

import signal
import threading

import pycolmap

from stages.run.process.stopping import SIGNALS

__all__ = ["pycolmap"]

# What fails raises, or is said by the caller.
pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value

if threading.current_thread() is threading.main_thread():
    for _number in SIGNALS:
        # Python still knows its own handler, and sets it anew.
        if (_handler := signal.getsignal(_number)) is not None:
            signal.signal(_number, _handler)
