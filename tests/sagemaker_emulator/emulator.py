"""The emulator as a whole: three servers, clients for them, the state behind them."""

from __future__ import annotations

import logging
import urllib.request
from typing import Any

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from .faults import Faults
from .play import Player
from .s3io import S3
from .server import ProxyHandler, SageMakerHandler, serve
from .service import REGION, Service

QUICK = Config(
    connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 3, "mode": "standard"}
)
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


class Emulator:
    """Start with ``with``; see the package's docstring.

    Parameters
    ----------
    speed
        Seconds that each status before and after the work itself lasts.
    seed
        Of the initial weights of factorization machines and of the k-NN sampling.
    config
        The botocore configuration of ``clients``; by default three attempts.
    """

    def __init__(self, speed: float = 0.01, seed: int = 0, config: Config | None = None):
        self.speed, self.seed, self.config = speed, seed, config or QUICK
        self.initial: dict[str, Any] | None = None
        self.faults = Faults()
        self.bucket = "emulated-bucket"
        self.region = REGION
        self.role = "arn:aws:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole"
        self.endpoints: dict[str, str] = {}
        self.clients: dict[str, Any] = {}

    def __enter__(self) -> Emulator:
        self._log_level = logging.getLogger("werkzeug").level
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line per S3 request
        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._moto.start()
        host, port = self._moto.get_host_and_port()
        address = f"http://{host}:{port}"
        # moto's state is the process's: what an earlier server left is still there
        urllib.request.urlopen(
            urllib.request.Request(f"{address}/moto-api/reset", method="POST"), timeout=30
        ).close()
        #: an S3 client past the proxy, for a test's own looking and placing
        self.s3 = self._client("s3", address, QUICK)
        self.s3.create_bucket(Bucket=self.bucket)
        s3 = S3(self.s3)
        player = Player(self, s3, self._client("logs", address, QUICK), self.faults)
        self.service = Service(s3, player, self.faults)
        self._servers = []
        for names, handler, attributes in [
            (("s3", "logs"), ProxyHandler, {"faults": self.faults, "moto": (host, port)}),
            (("sagemaker",), SageMakerHandler, {"service": self.service}),
        ]:
            server, url = serve(handler, **attributes)
            self._servers.append(server)
            self.endpoints |= dict.fromkeys(names, url)
        self.clients = {n: self._client(n, url, self.config) for n, url in self.endpoints.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for job in list(self.service.jobs.values()):
            job.stop()
            if job.thread:
                job.thread.join(timeout=10)
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._moto.stop()
        logging.getLogger("werkzeug").setLevel(self._log_level)

    def client(self, name: str, **config: Any) -> Any:
        """Another client, of a botocore configuration of its own."""
        return self._client(name, self.endpoints[name], QUICK.merge(Config(**config)))

    def _client(self, name: str, url: str, config: Config) -> Any:
        session = boto3.session.Session(**KEYS, region_name=REGION)
        return session.client(name, endpoint_url=url, config=config)

    @property
    def requests(self) -> list[tuple[str, dict[str, Any]]]:
        """All SageMaker requests so far, refused ones too: (operation, parameters)."""
        return self.service.requests

    def count(self, operation: str) -> int:
        """How many requests of an operation there were."""
        return sum(name == operation for name, _ in self.requests)

    def jobs(self) -> list[tuple[str, str, str]]:
        """(``"Training"`` or ``"Transform"``, name, status) of all jobs ever created."""
        jobs = self.service.jobs
        return [(family, name, job.status) for (family, name), job in jobs.items()]

    def models(self) -> list[str]:
        """The names of the models that have not been deleted."""
        return list(self.service.models)

    def env(self) -> dict[str, str]:
        """Environment variables by which code that makes its own clients comes here."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoints["s3"],
            "AWS_ENDPOINT_URL_SAGEMAKER": self.endpoints["sagemaker"],
            "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": self.endpoints["logs"],
            "AWS_ACCESS_KEY_ID": KEYS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": KEYS["aws_secret_access_key"],
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
