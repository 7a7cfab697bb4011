"""What a run keeps in S3: streamed in, read back within bounds, removed as a whole."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from ...errors import TransferError
from .clients import Clients, translated

__all__ = ["Store", "read_object", "split_uri", "write_object"]

_READS = 3  # of an object whose connection breaks
_PART_BYTES = 16 * 2**20  # of a multipart upload: S3 takes 10,000 parts, so up to 160 GB


class Store:
    """The objects below one prefix of a bucket.

    Parameters
    ----------
    clients : Clients
    bucket, prefix : str
    tags : mapping of str to str
        Put on every object.
    kms_key : str, optional
        Key that encrypts them; default: as the bucket is set up.

    Attributes
    ----------
    options : dict
        How objects are written, as boto3's ExtraArgs.
    """

    def __init__(
        self,
        clients: Clients,
        bucket: str,
        prefix: str,
        tags: Mapping[str, str],
        kms_key: str | None = None,
    ) -> None:
        self._clients, self._bucket, self._prefix = clients, bucket, prefix
        self.options: dict[str, Any] = {"Tagging": urlencode(dict(tags))}
        if kms_key is not None:
            self.options.update(ServerSideEncryption="aws:kms", SSEKMSKeyId=kms_key)

    def uri(self, key: str) -> str:
        """Return the address of a key, or of all keys below it where it ends in a slash."""
        return f"s3://{self._bucket}/{self._prefix}/{key}"

    def upload(self, key: str, chunks: Iterable[bytes]) -> None:
        """Write an object from chunks as they come; a failure leaves nothing behind.

        Raises
        ------
        SageMakerError
            Naming the object; a TransferError where the connection broke.
        """
        write_object(self._clients, self.uri(key), chunks, self.options)

    def keys(self, below: str = "") -> list[str]:
        """Return the keys that begin with ``below``, in order, relative to the prefix."""
        whole = f"{self._prefix}/{below}"
        with translated(f"listing s3://{self._bucket}/{whole}"):
            pages = self._clients["s3"].get_paginator("list_objects_v2")
            found = [
                entry["Key"]
                for page in pages.paginate(Bucket=self._bucket, Prefix=whole)
                for entry in page.get("Contents", ())
            ]
        return sorted(key[len(self._prefix) + 1 :] for key in found)

    def read(self, key: str, max_bytes: int) -> bytes:
        """Return an object; see :func:`read_object`."""
        return read_object(self._clients, self.uri(key), max_bytes)

    def remove(self, keep: Iterable[str] = ()) -> None:
        """Delete all objects but those of the given addresses, and uploads never finished."""
        staying = set(keep)
        keys = [key for key in self.keys() if self.uri(key) not in staying]
        client, whole = self._clients["s3"], f"{self._prefix}/"
        with translated(f"deleting s3://{self._bucket}/{whole}"):
            for at in range(0, len(keys), 1000):  # as many as one call may delete
                objects = [{"Key": f"{self._prefix}/{key}"} for key in keys[at : at + 1000]]
                answer = client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}
                )
                for error in answer.get("Errors", ()):
                    raise TransferError(
                        f"deleting s3://{self._bucket}/{error['Key']} failed: {error['Code']}"
                    )
            pages = client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=whole):
                for upload in page.get("Uploads", ()):
                    client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an s3:// address.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> split_uri("s3://bucket/a/model.tar.gz")
    ('bucket', 'a/model.tar.gz')
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise ValueError(f"expected an address like s3://bucket/key, got {uri!r}")
    return bucket, key


def read_object(clients: Clients, uri: str, max_bytes: int) -> bytes:
    """Return an object's bytes.

    Raises
    ------
    TransferError
        If it isn't there, is larger than ``max_bytes``, or does not come through.
    """
    for _ in range(_READS - 1):  # boto3 does not try again once the body has begun
        with suppress(TransferError):
            return _read_once(clients, uri, max_bytes)
    return _read_once(clients, uri, max_bytes)


def _read_once(clients: Clients, uri: str, max_bytes: int) -> bytes:
    bucket, key = split_uri(uri)
    with translated(f"reading {uri}"):
        answer = clients["s3"].get_object(Bucket=bucket, Key=key)
        size = int(answer["ContentLength"])
        if size > max_bytes:
            answer["Body"].close()
            raise TransferError(
                f"{uri} has {size:,} bytes, more than the {max_bytes:,} allowed: raise max_bytes"
            )
        data: bytes = answer["Body"].read()
    return data


def write_object(
    clients: Clients, uri: str, chunks: Iterable[bytes], options: Mapping[str, Any]
) -> None:
    """Write an object from chunks as they come; a failure leaves nothing behind.

    Parameters
    ----------
    clients : Clients
    uri : str
    chunks : iterable of bytes
    options : mapping
        Boto3's ExtraArgs.

    Raises
    ------
    SageMakerError
        Naming the object; a TransferError where the connection broke.
    """
    bucket, key = split_uri(uri)
    with translated(f"writing {uri}"):
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=4
        )
        clients["s3"].upload_fileobj(
            _Stream(chunks), bucket, key, ExtraArgs=dict(options), Config=config
        )


class _Stream(io.RawIOBase):
    """Chunks of bytes as a file that can only be read forward."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes, fewer only at the end."""
        parts: list[bytes] = []
        missing = size if size is not None and size >= 0 else None
        while missing is None or missing > 0:
            if not len(self._rest):
                self._rest = memoryview(next((chunk for chunk in self._chunks if chunk), b""))
                if not len(self._rest):
                    break
            taken = self._rest[:missing]
            parts.append(bytes(taken))
            self._rest = self._rest[len(taken) :]
            if missing is not None:
                missing -= len(taken)
        return b"".join(parts)
