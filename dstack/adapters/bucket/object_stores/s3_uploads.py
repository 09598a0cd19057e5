"""Interrupted uploads in parts: invisible in lists of objects, and paid for. S3 alone, by boto3.

A failed upload of dstack is given up at once, but a killed process leaves its upload behind, and so do other tools.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from dstack.adapters.bucket.remote_errors import redact_url, short_message
from dstack.errors import BucketError

_PLACE = re.compile(r"[^:/]+://([^/?#]+)/?([^?#]*)")
_NAMES = {
    "endpoint_url": ("endpoint_url", "endpoint", "aws_endpoint"),
    "aws_access_key_id": ("key", "access_key_id", "aws_access_key_id"),
    "aws_secret_access_key": ("secret", "secret_access_key", "aws_secret_access_key"),
    "aws_session_token": ("token", "session_token", "aws_session_token"),
    "region_name": ("region", "region_name", "aws_region"),
}
"""boto3's name -> its possible names in the options of a bucket."""


def abort_uploads(url: str, options: Mapping[str, Any], prefix: str, *, before: float) -> int:
    """End the uploads below `prefix` of the bucket at `url` that began before a time of day by the store's clock
    -> how many.

    0 without boto3. Raises BucketError when the store refuses.
    """
    found = _PLACE.fullmatch(url)
    if found is None:
        return 0
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        # Only a saving: prune goes on without boto3.
        return 0
    name, folder = found.group(1), found.group(2).strip("/")
    try:
        client = boto3.Session(profile_name=options.get("profile")).client("s3", **_arguments(options))
        try:
            return _abort(client, name, f"{folder}/{prefix}" if folder else prefix, before)
        finally:
            client.close()
    except (BotoCoreError, ClientError) as error:
        raise BucketError(
            f"interrupted uploads of {redact_url(url)} cannot be ended: {short_message(error)}",
            hint="everything else is done; your credentials need s3:ListBucketMultipartUploads for this",
        ) from None


def _arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    flat = {**options, **(options.get("client_kwargs") or {})}
    given = {ours: next((flat[name] for name in names if flat.get(name)), None) for ours, names in _NAMES.items()}
    given["region_name"] = given["region_name"] or os.environ.get("AWS_REGION")
    return {name: value for name, value in given.items() if value}


def _abort(client: Any, bucket: str, prefix: str, before: float) -> int:
    count = 0
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
        for upload in page.get("Uploads", ()):
            if upload["Initiated"].timestamp() < before:
                client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                count += 1
    return count
