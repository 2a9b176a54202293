"""Prefect blocks: credentials, a store, a plate. ``prefect block register`` takes this module."""

from polystore_flows.flows.blocks.credentials import PolystoreCredentials
from polystore_flows.flows.blocks.plate import PlateRef
from polystore_flows.flows.blocks.store import PolystoreStore

__all__ = ["PlateRef", "PolystoreCredentials", "PolystoreStore"]
