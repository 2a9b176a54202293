"""Opens buckets: endpoint, credentials, time-outs and retries for obstore.

What says how to reach a bucket, the first that speaks wins: what this process was given (see
``polystore_flows.credentials``), the entry ``s3://bucket`` of ``POLYSTORE_OBJECTS``, its entry
``s3``, then obstore's own variables (``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``GOOGLE_…``,
``AZURE_…``). Keys are the given ones, or come from a named profile, the environment, the profile
``AWS_PROFILE`` or ``default``, or from the machine's role, in this order.
"""

from __future__ import annotations

import os
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from datetime import timedelta
from pathlib import Path
from typing import Any

from obstore.store import AzureStore, GCSStore, S3Store

from ...credentials import Credentials
from ...errors import AccessDeniedError, UnsupportedError
from ...settings import ObjectStoreSettings, get_settings

Store = S3Store | GCSStore | AzureStore

_TRUE = frozenset({"1", "true", "yes", "on"})
_PROFILE_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}


def open_store(
    scheme: str,
    bucket: str,
    given: ObjectStoreSettings | None = None,
    held: Credentials | None = None,
) -> Store:
    """The store of a bucket; sends nothing yet.

    Args:
        scheme: ``s3``, ``gs`` or ``az``.
        bucket: its name; the container's for ``az``.
        given: overrides the settings from the environment.
        held: overrides `given`; its keys override profiles and the environment.
    """
    settings = get_settings()
    entries = settings.objects
    said = given or entries.get(f"{scheme}://{bucket}") or entries.get(scheme)
    said = _overridden(said or ObjectStoreSettings(), held)
    options: Any = {
        "timeout": timedelta(seconds=settings.objects_timeout),
        "connect_timeout": timedelta(seconds=min(5.0, settings.objects_timeout)),
    }
    if said.allow_http or os.environ.get("AWS_ALLOW_HTTP", "").lower() in _TRUE:
        options["allow_http"] = True
    retries: Any = {
        "max_retries": settings.objects_retries,
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
        "retry_timeout": timedelta(seconds=2 * settings.objects_timeout),
    }
    config: dict[str, Any] = {"skip_signature": True} if said.anonymous else {}
    if scheme == "s3":
        common: Any = {"client_options": options, "retry_config": retries}
        if held is not None and held.secret is not None:
            # Not as configuration, which would be joined by a session token of the environment.
            common["credential_provider"] = lambda: _s3_keys(held)
            config["access_key_id"] = held.user or ""
        config |= _s3_config(said, has_keys="access_key_id" in config)
        return S3Store(bucket, config=config, **common)  # type: ignore[arg-type]
    for name in ("profile", "region"):
        if getattr(said, name) is not None:
            raise UnsupportedError(f"{scheme}://{bucket}: '{name}' is a setting of s3 only")
    if scheme == "gs":
        if said.endpoint:
            config["base_url"] = said.endpoint
        if held is not None and held.secret is not None:
            config["service_account_key"] = held.secret
        return GCSStore(bucket, config=config, client_options=options, retry_config=retries)  # type: ignore[arg-type]
    if said.endpoint:
        config["endpoint"] = said.endpoint
    if held is not None:
        parts = {"account_name": held.user, "account_key": held.secret, "sas_key": held.token}
        config |= {name: value for name, value in parts.items() if value is not None}
    return AzureStore(bucket, config=config, client_options=options, retry_config=retries)  # type: ignore[arg-type]


def _overridden(said: ObjectStoreSettings, held: Credentials | None) -> ObjectStoreSettings:
    if held is None:
        return said
    names = ("profile", "endpoint", "region")
    update: dict[str, Any] = {n: v for n in names if (v := getattr(held, n)) is not None}
    if held.allow_http:
        update["allow_http"] = True
    if held.secret is not None:
        update |= {"profile": None, "anonymous": False}
    return said.model_copy(update=update)


def _s3_keys(held: Credentials) -> Any:
    keys = {"access_key_id": held.user or "", "secret_access_key": held.secret}
    return {**keys, "token": held.token, "expires_at": None}


def _s3_config(said: ObjectStoreSettings, *, has_keys: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"copy_if_not_exists": "multipart"}
    environment = "AWS_ACCESS_KEY_ID" in os.environ or "AWS_WEB_IDENTITY_TOKEN_FILE" in os.environ
    if said.profile is not None:
        config |= _profile(said.profile, wanted=True)
    elif not said.anonymous and not environment and not has_keys:
        name = os.environ.get("AWS_PROFILE")
        config |= _profile(name or "default", wanted=name is not None)
    if said.endpoint:
        config["endpoint"] = said.endpoint
    elif any(name in os.environ for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")):
        config.pop("endpoint", None)
    if said.region:
        config["region"] = said.region
    elif any(name in os.environ for name in ("AWS_REGION", "AWS_DEFAULT_REGION")):
        config.pop("region", None)
    return config


def _profile(name: str, *, wanted: bool) -> dict[str, Any]:
    """What AWS' own files say of a profile; `wanted` ones must have keys."""
    home = Path.home() / ".aws"
    files = (
        (os.environ.get("AWS_CONFIG_FILE", home / "config"), f"profile {name}"),
        (os.environ.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials"), name),
    )
    found: dict[str, Any] = {}
    for file, section in files:
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(file)
        except (OSError, ConfigParserError) as error:
            # The parser's text quotes the line, which may hold a key.
            raise AccessDeniedError(f"{file} cannot be read: {type(error).__name__}") from None
        for held in {section, name} if name == "default" else {section}:
            if parser.has_section(held):
                items = parser.items(held)
                found |= {_PROFILE_KEYS[k]: v for k, v in items if k in _PROFILE_KEYS}
    if wanted and not {"access_key_id", "secret_access_key"} <= found.keys():
        raise AccessDeniedError(
            f"the profile {name!r} holds no keys; put them into ~/.aws/credentials, or into the "
            f"environment by: aws configure export-credentials --profile {name} --format env"
        )
    return found if "access_key_id" in found else {}
