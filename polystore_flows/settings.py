"""Settings from the environment: every field is ``POLYSTORE_<NAME>``."""

from __future__ import annotations

from functools import lru_cache

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Time-outs, concurrency and the like; arguments of a call win over these."""

    model_config = SettingsConfigDict(env_prefix="POLYSTORE_", frozen=True)

    lock_timeout: float = Field(
        default=30.0, ge=0, description="Seconds to wait for the lock of a metadata document."
    )
    workers: int | None = Field(
        default=None, ge=1, description="Threads for copies and batches; by default one a core."
    )
    debug: bool = Field(
        default=False, description="Show the whole trace of an error on the command line."
    )


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once; ``get_settings.cache_clear()`` reads them anew."""
    return Settings()
