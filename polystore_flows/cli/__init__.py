"""The command ``polystore-flows``: look at stores, copy between them, show and check plates.

Exit status 0: good; 1: the thing asked about is wrong; 2: wrong usage; 130: interrupted.
"""

from .app import app, main

__all__ = ["app", "main"]
