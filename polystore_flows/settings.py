"""Settings from the environment: every field is ``POLYSTORE_<NAME>``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ObjectStoreSettings(BaseModel):
    """How to reach the buckets of an object store; names credentials and never holds them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint: str | None = Field(
        default=None, description="URL of the server; by default the cloud's own."
    )
    region: str | None = Field(default=None, description="Region of the buckets.")
    profile: str | None = Field(
        default=None, description="Section of ~/.aws/credentials that holds the keys (s3 only)."
    )
    allow_http: bool = Field(default=False, description="Allow an endpoint without TLS.")
    anonymous: bool = Field(default=False, description="Read public buckets without credentials.")


class Settings(BaseSettings):
    """Time-outs, concurrency and the like; arguments of a call win over these."""

    model_config = SettingsConfigDict(
        env_prefix="POLYSTORE_", frozen=True, hide_input_in_errors=True
    )

    lock_timeout: float = Field(
        default=30.0, ge=0, description="Seconds to wait for the lock of a metadata document."
    )
    workers: int | None = Field(
        default=None, ge=1, description="Threads for copies and batches; by default one a core."
    )
    objects: dict[str, ObjectStoreSettings] = Field(
        default_factory=dict,
        description="JSON: how to reach object stores, by scheme (s3) or bucket (s3://bucket).",
    )
    objects_timeout: float = Field(
        default=60.0, gt=0, description="Seconds that one request to an object store may take."
    )
    objects_retries: int = Field(
        default=4, ge=0, description="How often a request is sent again after a passing failure."
    )
    omero_tls: bool = Field(
        default=True, description="Encrypt connections to OMERO servers; false only for tests."
    )
    omero_timeout: float = Field(
        default=120.0, gt=0, description="Seconds that one call of an OMERO server may take."
    )
    omero_group: str | None = Field(
        default=None,
        description="Name of the group that new OMERO plates are made in; by default yours.",
    )
    omero_cache: float = Field(
        default=60.0, ge=0, description="Seconds that the structure of an OMERO plate is kept."
    )
    omero_mounts: dict[str, Path] = Field(
        default_factory=dict,
        description="JSON: folders of the OMERO server -> where they are mounted here; images "
        "that it keeps as OME-Zarr in them are read without it.",
    )
    zarr: dict[str, Any] = Field(
        default_factory=dict,
        description='JSON: how new OME-Zarr plates are written, {"compressor": "blosc-zstd"}; the '
        "fields of ZarrConfig.",
    )
    debug: bool = Field(
        default=False, description="Show the whole trace of an error on the command line."
    )


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once; ``get_settings.cache_clear()`` reads them anew."""
    return Settings()
