/* CPython 3.11 dropped this header; what it declared comes with Python.h. */
