"""Shipped test suites: ``contract_suites`` runs them over the rigs of ``rigs``; needs pytest."""
