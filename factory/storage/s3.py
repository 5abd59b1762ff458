"""Keep files under a prefix of an S3 bucket: `S3Store`, by boto3, and `arrow_filesystem` to read parts of tables."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any, TypeVar

from factory.storage.credentials import scrub
from factory.storage.interface import StorageConfig, StorageError, Stored, checked
from recon.user_error import UserError

Answer = TypeVar("Answer")
CHUNK = 1 << 16
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 20.0
SESSION_NAME = "im3d-factory"
_NO_CREDENTIALS = "no AWS credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID, or --storage.anonymous for a public bucket"
_PASSING_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
_PASSING_CODES = {"RequestTimeout", "SlowDown", "Throttling", "InternalError", "NoSuchUpload"}


class SlowBody(Exception):
    """A body that comes so slowly that a new request is the better bet."""


def split(url: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key.

    Raises:
        UserError: without a bucket, or with credentials in it.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if "@" in bucket:
        raise UserError(f"{scrub(url)}: keys do not belong into an address; use the AWS environment or a profile")
    if not bucket:
        raise UserError(f"{url}: no bucket; write s3://bucket/prefix")
    return bucket, key.rstrip("/")


class S3Store:
    """A prefix of a bucket. `create` is a conditional put (If-None-Match: *)."""

    def __init__(self, url: str, config: StorageConfig | None = None) -> None:
        self.root = url.rstrip("/")
        self.bucket, self.prefix = split(self.root)
        self.config = config or StorageConfig()
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}

    @property
    def client(self) -> Any:
        """The boto3 client, made at first use in each process."""
        if self._client is None:
            self._client = _client(self.config)
        return self._client

    def put(self, key: str, data: bytes) -> None:
        """As `Store.put`: in parts of `part_mb` MiB."""
        from boto3.s3.transfer import TransferConfig

        size = self.config.part_mb << 20
        parts = TransferConfig(multipart_threshold=size, multipart_chunksize=size, max_concurrency=4)
        place = {"Bucket": self.bucket, "Key": self._name(key)}
        self._tried(key, lambda: self.client.upload_fileobj(io.BytesIO(data), **place, Config=parts))

    def create(self, key: str, data: bytes) -> bool:
        """As `Store.create`. When an answer is lost, the next try meets the object of the first: a refusal (412)
        is ours when the object holds our bytes, and void when the object has gone again."""
        return self._tried(key, lambda: self._created(key, data))

    def get(self, key: str) -> bytes:
        return self._tried(key, lambda: self._body(key))

    def open(self, key: str) -> Any:
        filesystem = arrow_filesystem(self.bucket, self.config)
        try:
            return self._tried(key, lambda: filesystem.open_input_file(f"{self.bucket}/{self._name(key)}"))
        except FileNotFoundError as error:
            raise KeyError(key) from error

    def keys(self, prefix: str) -> Iterator[str]:
        return (item.key for item in self.objects(prefix))

    def objects(self, prefix: str) -> Iterator[Stored]:
        """As `ReadableStore.objects`, sorted, a page of the listing at a time."""
        start = len(self.prefix) + 1 if self.prefix else 0
        place = {"Bucket": self.bucket, "Prefix": f"{self._name(prefix.rstrip('/'))}/"}
        more: dict[str, Any] = {}
        while True:
            page = self._tried(prefix, lambda more=more: self.client.list_objects_v2(**place, **more))
            for item in page.get("Contents", []):
                yield Stored(key=item["Key"][start:], size=item["Size"], modified=item["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        self._tried(key, lambda: self.client.delete_object(Bucket=self.bucket, Key=self._name(key)))

    def sweep(self) -> None:
        """Give up multipart uploads that were never finished: nobody sees them, but they are paid for."""
        place = {"Bucket": self.bucket, "Prefix": f"{self.prefix}/" if self.prefix else ""}
        found = self._tried("", lambda: self.client.list_multipart_uploads(**place)).get("Uploads", [])
        for upload in found:
            target = {"Bucket": self.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            self._tried(upload["Key"], lambda target=target: self.client.abort_multipart_upload(**target))

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{checked(key)}" if self.prefix else checked(key)

    def _created(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        try:
            self.client.put_object(Bucket=self.bucket, Key=self._name(key), Body=data, IfNoneMatch="*")
            return True
        except ClientError as error:
            if _status(error) != 412:
                raise
            try:
                return self._body(key) == data
            except KeyError:
                raise ConnectionError("the object that stood in the way has gone") from error

    def _body(self, key: str) -> bytes:
        """One try at reading an object; raises KeyError, or SlowBody when it takes too long."""
        from botocore.exceptions import ClientError

        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=self._name(key))
        except ClientError as error:
            if _status(error) == 404:
                raise KeyError(key) from error
            raise
        allowed = self.config.timeout_seconds * (1 + answer["ContentLength"] / (self.config.part_mb << 20))
        deadline = time.monotonic() + allowed
        chunks = []
        for chunk in answer["Body"].iter_chunks(CHUNK):
            chunks.append(chunk)
            if time.monotonic() > deadline:
                answer["Body"].close()
                raise SlowBody(f"the body did not come within {allowed:.0f} s")
        return b"".join(chunks)

    def _tried(self, key: str, request: Callable[[], Answer]) -> Answer:
        """The answer to a request, tried again after a passing failure; raises StorageError."""
        pause = FIRST_PAUSE
        for attempt in range(self.config.attempts):
            try:
                return request()
            except (KeyError, FileNotFoundError):
                raise
            except Exception as error:
                last = attempt == self.config.attempts - 1
                if last or not _passes(error):
                    tries = f" ({attempt + 1} tries)" if attempt else ""
                    # `from None`: the original may hold credentials
                    raise StorageError(f"{self.root}/{key}: {scrub(_advice(error))}{tries}") from None
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _status(error: Any) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed in a while."""
    from botocore import exceptions as aws

    if isinstance(error, aws.ClientError):
        return _status(error) in _PASSING_STATUS or error.response.get("Error", {}).get("Code") in _PASSING_CODES
    broken = (aws.HTTPClientError, aws.IncompleteReadError, aws.FlexibleChecksumError, SlowBody, OSError)
    return isinstance(error, broken)


def _advice(error: Exception) -> str:
    """The error as a sentence, with the way out where the cause is a setting."""
    from botocore import exceptions as aws

    if isinstance(error, aws.NoCredentialsError):
        return _NO_CREDENTIALS
    return str(error) or type(error).__name__


def _session(config: StorageConfig) -> Any:
    """A boto3 session on the usual chain, or on a role assumed with it."""
    import boto3
    import botocore.session
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    session = boto3.Session(region_name=config.region)
    if config.role_arn is None:
        return session
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=session.client,
        source_credentials=session.get_credentials(),
        role_arn=config.role_arn,
        extra_args={"RoleSessionName": SESSION_NAME},
    )
    core: Any = botocore.session.get_session()
    core._credentials = DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)
    return boto3.Session(botocore_session=core, region_name=config.region)


def _client(config: StorageConfig) -> Any:
    from botocore import UNSIGNED
    from botocore.config import Config

    options: dict[str, Any] = {"signature_version": UNSIGNED} if config.anonymous else {}
    settings = Config(
        retries={"mode": "standard", "total_max_attempts": 2},
        connect_timeout=min(10.0, config.timeout_seconds),
        read_timeout=config.timeout_seconds,
        **options,
    )
    return _session(config).client("s3", endpoint_url=config.endpoint, config=settings)


def arrow_filesystem(bucket: str, config: StorageConfig) -> Any:
    """A pyarrow file system with the credentials, endpoint and region that boto3 uses."""
    return _arrow_filesystem(bucket, tuple(sorted(asdict(config).items())), int(time.monotonic() // 600))


@lru_cache(maxsize=8)
def _arrow_filesystem(bucket: str, settings: tuple, _age: int) -> Any:
    """Made anew every ten minutes, since the credentials of a role expire."""
    import pyarrow.fs

    config = StorageConfig(**dict(settings))
    session = _session(config)
    client = session.client("s3", endpoint_url=config.endpoint)
    scheme, _, host = client.meta.endpoint_url.partition("://")
    options: dict[str, Any] = {"anonymous": True}
    if not config.anonymous:
        credentials = session.get_credentials()
        if credentials is None:
            raise StorageError(f"s3://{bucket}: {_NO_CREDENTIALS}")
        frozen = credentials.get_frozen_credentials()
        options = {"access_key": frozen.access_key, "secret_key": frozen.secret_key, "session_token": frozen.token}
    if not host.endswith("amazonaws.com"):
        options |= {"endpoint_override": host, "scheme": scheme, "region": client.meta.region_name or "us-east-1"}
    else:
        options |= {"region": config.region or pyarrow.fs.resolve_s3_region(bucket)}
    retries = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=config.attempts)
    return pyarrow.fs.S3FileSystem(**options, retry_strategy=retries)
