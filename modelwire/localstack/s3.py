"""The local S3 server: S3Proxy over a folder, with a secret of its own for each state folder."""

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from modelwire.localstack.jars import SERVERS
from modelwire.localstack.ports import LOOPBACK
from modelwire.localstack.processes import ServerProcess
from modelwire.localstack.runtime import QUICK_START
from modelwire.localstack.stack_info import S3, StackInfo, command
from schemas.errors import ModelwireError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# The server holds a whole request in memory to check its SHA-256: room for two of the largest.
LARGEST_PUT = 128 * 2**20
HEAP = ("-Xms32m", "-Xmx512m")


def s3proxy_conf(port: int, access_key: str, secret_key: str, data: Path) -> str:
    """The server's configuration. `data` must be absolute: multipart uploads get lost otherwise."""
    settings = {
        "s3proxy.endpoint": f"http://{LOOPBACK}:{port}",
        # Signatures are checked, so that wrong credentials fail here as they do on AWS.
        "s3proxy.authorization": "aws-v2-or-v4",
        "s3proxy.identity": access_key,
        "s3proxy.credential": secret_key,
        "s3proxy.v4-max-non-chunked-request-size": LARGEST_PUT,  # 32 MiB unless told otherwise
        "jclouds.provider": "filesystem-nio2",
        "jclouds.filesystem.basedir": _escaped(str(data)),
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def _escaped(text: str) -> str:
    """A value of a Java properties file, whose escapes are those of a JSON string."""
    return json.dumps(text)[1:-1]


class S3Server:
    """The S3 server of one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self.process = ServerProcess(S3, state_dir)
        self.folder = self.process.folder

    def start(self, java: Path, class_path: str, info: StackInfo) -> int:
        """Start the process; returns its pid."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "s3proxy.conf"
        configuration.touch(mode=0o600)  # it holds the secret
        configuration.write_text(
            s3proxy_conf(info.s3_port, info.s3_access_key, info.s3_secret_key, data),
            encoding="ascii",
        )
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        logging = f"-Dlogback.configurationFile={SERVERS / 's3' / 'logback.xml'}"
        main = ["org.gaul.s3proxy.Main", "--properties", configuration.name]
        return self.process.start(java, [*HEAP, *QUICK_START, logging, *main], class_path)

    def wait_ready(self, info: StackInfo, limit_seconds: float) -> None:
        """Return when a real client is served; the bucket exists then.

        Raises ModelwireError with the tail of the log when the process ends or the time is over.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        client = _client(info)
        deadline = time.monotonic() + limit_seconds
        while True:
            try:
                names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
                if info.s3_bucket not in names:
                    client.create_bucket(Bucket=info.s3_bucket)
                return
            except ClientError as problem:
                raise ModelwireError(
                    f"{info.s3_endpoint} answers, but not as our S3 server would: {problem}",
                    hint="stop what listens there, or move this stack: "
                    f"{command('down', info.state_dir)} && "
                    f"{command('up --new-ports', info.state_dir)}",
                ) from problem
            except BotoCoreError:
                if self.process.pid() is None:
                    raise self.process.failed("ended during its start") from None
                if time.monotonic() > deadline:
                    raise self.process.failed(
                        f"was not ready within {limit_seconds:g} s", timed_out=True
                    ) from None
                time.sleep(0.05)


def _client(info: StackInfo) -> "S3Client":
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    # Neither the user's AWS profile nor a proxy has a say here: this server is ours and on loopback.
    nobody = (None, None, None, None)
    own = Session(
        session_vars={"profile": nobody, "config_file": nobody, "credentials_file": nobody}
    )
    return boto3.Session(botocore_session=own).client(
        "s3",
        endpoint_url=info.s3_endpoint,
        region_name=info.s3_region,
        aws_access_key_id=info.s3_access_key,
        aws_secret_access_key=info.s3_secret_key,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=1,
            read_timeout=5,
            proxies={},
        ),
    )
