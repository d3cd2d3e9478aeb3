"""The settings: one typed tree, read once, where a command starts.

Sources, the later winning: the defaults here, the local stack's ``stack.json`` (only for what nothing
else names), ``modelwire.toml``, ``KAFKA_BOOTSTRAP_SERVERS``, the environment
(``MODELWIRE_CONSUMER__BATCH_SIZE=256``: ``__`` nests), flags. Credentials for AWS come from ``AWS_*``
and the usual chain where none are set here. Nothing else in modelwire reads the environment.
"""

import getpass
import os
import re
import socket
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from adapters.object_store import S3Settings
from schemas.errors import ModelwireError, UsageProblem

CONFIG_NAME = "modelwire.toml"
STACK_NAME = "stack.json"
PREFIX = "MODELWIRE_"
NESTING = "__"
SERVERS_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
PAGE_HINT = "docs/settings.md lists every setting"

_IN_SECTION = re.compile(f"{PREFIX}(.+?){NESTING}", re.IGNORECASE)


class Section(BaseModel):
    """A table of settings; a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Kafka(Section):
    """How to reach the brokers."""

    bootstrap_servers: str = ""
    """``host:port[,host:port…]``. Empty: the running local stack."""

    properties: dict[str, str] = Field(default_factory=dict)
    """Any librdkafka property, passed on to every client (``security.protocol``, ``sasl.…``). What
    the exactly-once guarantee rests on cannot be set here."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _check_ports(cls, servers: str) -> str:
        """librdkafka takes a port that is no number for 0, and then for a broker that is away."""
        for address in servers.split(","):
            port = _port_in(address.strip())
            if port is None:
                continue
            if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
                raise ValueError(f"the port of {address.strip()} must be a number from 1 to 65535")
        return servers


def _port_in(address: str) -> str | None:
    """What stands in the port's place; None where an address has none, as IPv6 without brackets."""
    _, _, behind_the_brackets = address.rpartition("://")[2].rpartition("]")
    host, colon, port = behind_the_brackets.rpartition(":")
    return port if colon and ":" not in host else None


class S3(Section):
    """How to reach the object store when ``store_url`` is ``s3://…``. Empty: boto3's own chain."""

    endpoint: str = ""
    """URL of an S3-compatible server; empty means AWS."""

    region: str = ""
    """Region that requests are signed for."""

    access_key: str = ""
    """Access key; with ``secret_key``, instead of the chain's."""

    secret_key: str = ""
    """Secret key. Better set in the environment than in the file."""


class Topics(Section):
    """Names and shapes of a model's topics; ``{model}`` is replaced by the model's name."""

    control: str = "{model}.control"
    """Every decision about the model, for ever; one partition."""

    requests: str = "{model}.requests"
    """Where callers put forecast requests."""

    results: str = "{model}.results"
    """Forecasts."""

    shadow: str = "{model}.shadow"
    """A candidate's answers that nobody sees."""

    rejections: str = "{model}.rejections"
    """Requests that got no forecast, and why; one partition."""

    fleet: str = "{model}.fleet"
    """What each instance says of itself; one partition, compacted."""

    actuals: str = "{model}.actuals"
    """What was really sold."""

    partitions: int = Field(default=8, ge=1, le=10_000)
    """Partitions of requests, results, shadow and actuals: the most instances that can share the
    work. Growing it later moves keys, so choose amply."""

    replication: int = Field(default=1, ge=1, le=10)
    """Copies of each partition. 1 suits one broker; a cluster wants 3."""

    min_insync_replicas: int = Field(default=1, ge=1, le=10)
    """Copies that must confirm a write; 2 where replication is 3."""

    max_request_bytes: int = Field(default=65_536, ge=1_024, le=8_388_608)
    """Largest request, in bytes; results and rejections, which echo it, allow 64 KiB more."""


class Membership(StrEnum):
    """How consumers join their group."""

    STATIC = "static"
    DYNAMIC = "dynamic"


class Consumer(Section):
    """The answering loop."""

    membership: Membership = Membership.STATIC
    """``static``: stable names by slot, for supervisors and StatefulSets that restart the same slot; a
    restarted slot has its partitions back within a second. ``dynamic``: random names, for tasks that
    have no ordinal."""

    batch_size: int = Field(default=512, ge=1, le=10_000)
    """Most requests scored in one run of the model. A run of one row costs ten times the row."""

    batch_wait_ms: int = Field(default=5, ge=0, le=1_000)
    """How long a batch waits to fill after its first request."""

    commit_every: int = Field(default=2_560, ge=1, le=100_000)
    """Answers after which the transaction is committed at the latest."""

    commit_interval_ms: int = Field(default=25, ge=1, le=5_000)
    """Age at which a transaction is committed at the latest: it delays an answer by up to this."""

    session_timeout_ms: int = Field(default=6_000, ge=1_000, le=300_000)
    """Silence after which the group takes an instance for dead."""

    transaction_timeout_ms: int = Field(default=10_000, ge=1_000, le=900_000)
    """Age at which the broker aborts a dead instance's transaction. Readers wait that long."""

    shadow_queue_kilobytes: int = Field(default=8_192, ge=64, le=1_048_576)
    """Requests that wait for shadows, in KiB. Beyond it they are left out and counted as shed, so
    that a shadow that is slower than the champion costs no more than this."""

    status_interval_ms: int = Field(default=1_000, ge=100, le=60_000)
    """Time between two announcements on the fleet topic."""

    stamp_wait_ms: int = Field(default=30_000, ge=1_000, le=600_000)
    """How long a partition may wait for the revision that its last owner answered with. After it the
    instance leaves the group and says why."""

    guard_wait_ms: int = Field(default=60_000, ge=0, le=3_600_000)
    """How long a rollout with traffic may have too few ready instances before a live one aborts it. 0:
    never, and a person has to. Longer than a restart and a load take, or a restart aborts rollouts."""

    load_timeout_ms: int = Field(default=60_000, ge=1_000, le=600_000)
    """Limit for fetching one version, retries included. Its trial, which follows, has its own."""

    vet_timeout_ms: int = Field(default=20_000, ge=1_000, le=600_000)
    """How long a new version may take to load and to repeat its golden vectors in the process where it
    is tried before this one loads it. A model that hangs is refused after this. The time in which a busy
    machine does not let that process run is not counted: a trial may take up to five times as long."""

    vet_megabytes: int = Field(default=4_096, ge=256, le=1_048_576)
    """Address space of that process, in MiB. A model that asks for more is refused."""

    memory_megabytes: int = Field(default=0, ge=0, le=1_048_576)
    """Resident memory that this instance may take, in MiB: a version that would take it beyond is
    refused. 0: the container's limit, or what the machine has."""

    cache_dir: Path | None = None
    """Where fetched bundles are kept, shared by the instances of one machine. None: ``cache/`` under
    ``state_dir``. Where it cannot be written, an instance goes on without."""

    cache_megabytes: int = Field(default=2_048, ge=0, le=1_048_576)
    """Most that the cache holds, in MiB; the bundle not used for longest goes first. 0: no cache."""

    score_timeout_ms: int = Field(default=10_000, ge=500, le=600_000)
    """How long scoring one batch may take before the process is ended, as one that hangs. A batch that
    was in hand at two such ends, or crashes, is taken apart in a process of its own."""

    health_port: int = Field(default=0, ge=0, le=65_535)
    """Port of ``/healthz``, ``/readyz`` and ``/metrics``. 0: none."""

    health_host: str = "127.0.0.1"
    """Address that this port listens on; ``0.0.0.0`` for probes and scrapes from elsewhere."""

    summary_interval_ms: int = Field(default=10_000, ge=1_000, le=3_600_000)
    """Time between two log lines that sum up what was answered; none is written a request."""


class Audit(Section):
    """Where answers are kept for the audit, and how they get there."""

    store_url: str = ""
    """Where answer files are: ``s3://bucket[/prefix]`` or ``file:///folder``. Empty: ``store_url``."""

    file_megabytes: int = Field(default=64, ge=1, le=256)
    """Records of one file, in MiB before they are compressed, beyond which it is stored."""

    file_seconds: float = Field(default=900, ge=0.1, le=86_400)
    """Age of a file's first record here at which it is stored, so that no answer waits longer."""

    retention_days: int = Field(default=400, ge=1, le=100_000)
    """How long answers can be asked for. No bundle that one of them refers to is removed in that time.
    The answer files are removed by the bucket's lifecycle rule, not by modelwire."""

    buffer_megabytes: int = Field(default=256, ge=8, le=65_536)
    """Records that wait to be stored, over all partitions, in MiB. Beyond it the largest is stored."""


class LocalStack(Section):
    """The Kafka broker and the S3 server that ``modelwire up`` starts."""

    jar_cache: Path | None = None
    """Folder of the downloaded jars, shared by all stacks. None: ``~/.cache/modelwire/jars``."""

    maven_repository: str = ""
    """Where missing jars are downloaded from. Empty: Maven Central. Any mirror will do."""


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTING,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    state_dir: Path = Path(".modelwire")
    """Folder of the local stack and of the default store."""

    store_url: str = ""
    """Where bundles are: ``s3://bucket[/prefix]`` or ``file:///folder``. Empty: the running local
    stack's bucket, else ``store/`` under ``state_dir``."""

    actor: str = ""
    """Who gives the commands, as the control log records it. Empty: ``user@host``."""

    s3: S3 = Field(default_factory=S3)
    kafka: Kafka = Field(default_factory=Kafka)
    topics: Topics = Field(default_factory=Topics)
    stack: LocalStack = Field(default_factory=LocalStack)
    consumer: Consumer = Field(default_factory=Consumer)
    audit: Audit = Field(default_factory=Audit)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment; ``load_settings`` hands the file's table in below them."""
        return (
            init_settings,
            env_settings,
            _UnknownSections(settings_cls),
            _CommonVariables(settings_cls),
            _File(settings_cls),
        )

    @property
    def cache_folder(self) -> Path:
        """Where what may be lost is kept, for the instances of this machine."""
        return self.consumer.cache_dir or self.state_dir / "cache"

    @property
    def audit_url(self) -> str:
        """Where answer files are."""
        return self.audit.store_url or self.store_url

    @property
    def s3_settings(self) -> S3Settings:
        """The S3 section as the object store takes it."""
        s3 = self.s3
        return S3Settings(
            endpoint_url=s3.endpoint or None,
            region=s3.region or None,
            access_key=s3.access_key or None,
            secret_key=s3.secret_key or None,
        )


class _UnknownSections(PydanticBaseSettingsSource):
    """Variables of sections that do not exist, which the settings then refuse.

    pydantic looks for the variables that it knows, and so for keys in the sections that it knows. A name
    without ``__`` may be somebody else's: Kubernetes sets some for a service that is called modelwire.
    """

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        named = [found[1].lower() for found in map(_IN_SECTION.match, os.environ) if found]
        known = self.settings_cls.model_fields
        return {section: {} for section in named if section not in known}


class _CommonVariables(PydanticBaseSettingsSource):
    """Variables that other tools share."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        servers = os.environ.get(SERVERS_VARIABLE)
        return {"kafka": {"bootstrap_servers": servers}} if servers else {}


def _config_file() -> Path:
    return Path(os.environ.get("MODELWIRE_CONFIG") or CONFIG_NAME)


class _File(TomlConfigSettingsSource):
    """``modelwire.toml``: the file that ``MODELWIRE_CONFIG`` names, else that of this folder."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        path = _config_file()
        if os.environ.get("MODELWIRE_CONFIG") and not path.is_file():
            raise UsageProblem(
                f"MODELWIRE_CONFIG names {path}, which is not a file",
                hint="mend the path or unset the variable",
            )
        try:
            super().__init__(settings_cls, path)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            line, what = _fault(path, error)
            raise UsageProblem(
                f"{path} is not valid TOML: line {line}: {what}",
                hint=f"mend that line, as in [consumer] and below it batch_size = 256; {PAGE_HINT}",
            ) from None  # the cause holds the file's text
        except OSError as error:
            raise UsageProblem(
                f"{path} cannot be read: {error.strerror}",
                hint="make it readable, or name another file in MODELWIRE_CONFIG",
            ) from error


def _fault(path: Path, error: ValueError) -> tuple[int, str]:
    """The line of a file that is no TOML, and what is wrong with it."""
    if isinstance(error, UnicodeDecodeError):
        return error.object.count(b"\n", 0, error.start) + 1, "it is not text in UTF-8"
    what, _, where = str(error).rpartition(" (at ")
    found = re.match(r"line (\d+)", where)
    # Without one it is the end of the document, where the file ends too early.
    return int(found[1]) if found else len(path.read_bytes().splitlines()), what


def load_settings(**flags: Any) -> Settings:
    """The settings, with ``flags`` winning over every other source; a flag of None says nothing.

    Raises UsageProblem that names the key, what is wrong with it and where it was set.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        key = tuple(str(part) for part in first["loc"])
        origin = _origin(key, given)
        if first["type"] == "extra_forbidden":
            raise _unknown(".".join(key), origin) from None
        rule = first["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
        found = f"{_shown(key, first['input'])} was found" + (f" in {origin}" if origin else "")
        raise UsageProblem(
            f"the setting {'.'.join(key)} is not usable: {rule}, and {found}",
            hint=f"mend it there; {PAGE_HINT}",
        ) from None  # the cause holds the value, which may be secret
    except SettingsError as error:
        raise UsageProblem(
            f"the settings cannot be read: {error}",
            hint=f"mend the variable {PREFIX}… of that field; {PAGE_HINT}",
        ) from None
    return _fill_in(settings)


def _unknown(key: str, origin: str) -> UsageProblem:
    near = get_close_matches(key, _keys(Settings), 1)
    meant = f"did you mean {near[0]}? " if near else ""
    where = f" (found in {origin})" if origin else ""
    return UsageProblem(f"there is no setting {key}{where}", hint=meant + PAGE_HINT)


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted name of each setting and of each section."""
    for name, field in section.model_fields.items():
        yield prefix + name
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _keys(annotation, f"{prefix}{name}.")


_MAY_BE_SECRET = ("s3", "kafka.properties")
_IS_NO_SECRET = ("s3.endpoint", "s3.region")


def _shown(key: tuple[str, ...], value: object) -> str:
    """What was found, for a message: never what may be a secret, and no table."""
    if not isinstance(value, str | int | float):
        return "a table" if isinstance(value, dict) else "something else"
    dotted = ".".join(key)
    is_whole_section = dotted == "kafka"
    if is_whole_section or (dotted.startswith(_MAY_BE_SECRET) and dotted not in _IS_NO_SECRET):
        return "a value that is not shown here"
    return repr(value)


def _origin(key: tuple[str, ...], flags: dict[str, Any]) -> str:
    """Where a setting was found, as far as that is known: in the order in which sources win."""
    if _holds(flags, key):
        return "a flag"
    for depth in range(len(key), 0, -1):  # a variable may hold a whole section, as JSON
        name = (PREFIX + NESTING.join(key[:depth])).upper()
        for variable, text in os.environ.items():
            is_part_of_it = depth == len(key) and variable.upper().startswith(name + NESTING)
            is_it = variable.upper() == name and _holds(_table_in(text), key[depth:])
            if is_it or is_part_of_it:
                return f"the variable {variable}"
    if key == ("kafka", "bootstrap_servers") and os.environ.get(SERVERS_VARIABLE):
        return f"the variable {SERVERS_VARIABLE}"
    return str(_config_file()) if _config_file().is_file() else ""


def _table_in(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _holds(table: Any, key: tuple[str, ...]) -> bool:
    for name in key:
        if not isinstance(table, dict) or name not in table:
            return False
        table = table[name]
    return True


def _fill_in(settings: Settings) -> Settings:
    stack = _read_stack(settings.state_dir / STACK_NAME)
    changes: dict[str, Any] = {}
    if not settings.kafka.bootstrap_servers and stack is not None:
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": stack.bootstrap_servers})
        changes["kafka"] = kafka
    if not settings.store_url and stack is not None:
        changes["store_url"] = f"s3://{stack.s3.bucket}"
        own = settings.s3  # what is set stays, right or wrong
        changes["s3"] = S3(
            endpoint=own.endpoint or stack.s3.endpoint,
            region=own.region or stack.s3.region,
            access_key=own.access_key or stack.s3.access_key,
            secret_key=own.secret_key or stack.s3.secret_key,
        )
    elif not settings.store_url:
        changes["store_url"] = (settings.state_dir.absolute() / "store").as_uri()
    if not settings.actor:
        changes["actor"] = f"{getpass.getuser()}@{socket.gethostname()}"
    return settings.model_copy(update=changes)


class _StackS3(msgspec.Struct):
    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    region: str


class _Stack(msgspec.Struct):
    bootstrap_servers: str
    s3: _StackS3
    pids: dict[str, int]


def _read_stack(path: Path) -> _Stack | None:
    """The stack that `modelwire up` started; None where there is none or it was stopped."""
    try:
        stack = msgspec.json.decode(path.read_bytes(), type=_Stack)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ModelwireError(
            f"{path} cannot be read: {error}",
            hint=f"remove it and start the stack again: rm {path} && modelwire up",
        ) from error
    return stack if stack.pids else None
