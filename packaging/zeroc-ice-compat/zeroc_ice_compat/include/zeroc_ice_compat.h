/* What zeroc-ice 3.6.5 uses of CPython and is gone; included ahead of every source. */
#ifndef ZEROC_ICE_COMPAT_H
#define ZEROC_ICE_COMPAT_H

#ifdef __cplusplus

#include <Python.h>

/* 3.11 hides PyThreadState.frame, and the only use of PyThreadState_GET() here reads it. */
struct IceCompatThreadState
{
    PyFrameObject* frame;
    IceCompatThreadState* operator->() { return this; }
};

static inline IceCompatThreadState iceCompatThreadState()
{
    IceCompatThreadState state = { PyEval_GetFrame() };
    return state;
}

#undef PyThreadState_GET
#define PyThreadState_GET() iceCompatThreadState()

/* Deprecated for long, dropped in 3.13. */
#if PY_VERSION_HEX >= 0x030D0000

#define PyEval_CallObject(callable, args) PyObject_CallObject(callable, args)
#define PyEval_InitThreads() ((void)0)

static inline int PyObject_AsReadBuffer(PyObject* object, const void** start, Py_ssize_t* size)
{
    Py_buffer view;
    if(PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) != 0)
    {
        return -1;
    }
    *start = view.buf;
    *size = view.len;
    PyBuffer_Release(&view);
    return 0;
}

#endif

#else

/* readlink(): newer compilers refuse functions that nobody declared. */
#include <unistd.h>

#endif

#endif
