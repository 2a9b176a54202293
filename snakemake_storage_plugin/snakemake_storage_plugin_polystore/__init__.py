"""The Snakemake storage plugin ``polystore``: plates, wells, fields, tables, files and folders.

Snakemake imports this at every start, so nothing heavy is imported here.
"""

from .provider import StorageObject, StorageProvider
from .settings import StorageProviderSettings

__all__ = ["StorageObject", "StorageProvider", "StorageProviderSettings"]
