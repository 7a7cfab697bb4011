"""The emulator's own way to S3: locations, listing by string prefix, reading, writing."""

from __future__ import annotations

from typing import Any


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key (or prefix) of an ``s3://`` location."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class S3:
    """A boto3 client reduced to the few things a job does."""

    def __init__(self, client: Any):
        self.client = client

    def keys(self, uri: str) -> list[str]:
        """The keys that start with this prefix, in order: ``…/train`` matches ``…/train_knn/x``."""
        bucket, prefix = split_uri(uri)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        try:
            return sorted(item["Key"] for page in pages for item in page.get("Contents", []))
        except self.client.exceptions.NoSuchBucket:
            return []

    def read(self, bucket: str, key: str) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def objects(self, uri: str) -> dict[str, bytes]:
        """The objects under a prefix by key, in key order, without the empty "folders"."""
        bucket, _ = split_uri(uri)
        return {key: self.read(bucket, key) for key in self.keys(uri) if not key.endswith("/")}

    def exists(self, uri: str) -> bool:
        return split_uri(uri)[1] in self.keys(uri)

    def write(self, uri: str, data: bytes) -> None:
        bucket, key = split_uri(uri)
        self.client.put_object(Bucket=bucket, Key=key, Body=data)
