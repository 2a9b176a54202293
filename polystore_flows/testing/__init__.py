"""Shipped tests: contract suites over rigs (they need pytest), and a harness of faults."""
