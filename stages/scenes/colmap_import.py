"""pycolmap without its log and its handlers of signals to stop, and beside Pillow.

Its import replaces the process's handler of SIGTERM by one that aborts with a stack trace. And its
library shows a zlib of its own to what it loads: where that is the system's libz, half of the calls
within libz reach the other version, and the next PNG corrupts memory. Pillow loads libz first here.
"""

import signal
import threading

import PIL.Image  # noqa: F401 - before pycolmap
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
