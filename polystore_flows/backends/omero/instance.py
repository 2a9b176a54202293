"""Placeholder."""


class OMEROInstanceManager: ...
