"""Which files a dataset's sources are, what is noted of them, and pins of DVC."""

import hashlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from adapters.object_store import S3Settings
from schemas.errors import ModelwireError, NotFound, UsageProblem
from tests.unit.panel_reading import FEW, few_in, panel_of, small_columns, write_csv
from trainer.dataset import DatasetFile, load_dataset
from trainer.reading import read_panel
from trainer.sources import SourceFile, open_sources

if TYPE_CHECKING:
    from tests.conftest import RunningStack


def files_of(file: DatasetFile, s3: S3Settings | None = None) -> tuple[SourceFile, ...]:
    with open_sources(file, s3) as sources:
        return sources.all


def with_source(folder: Path, source: str) -> DatasetFile:
    return few_in(folder, config=FEW.replace('"panel.csv"', source))


def pin(path: Path, md5: str, name: str = "") -> Path:
    """A pin of DVC beside a file, as ``dvc add`` writes it."""
    pinned = path.with_name(f"{path.name}.dvc")
    size = path.stat().st_size
    pinned.write_text(
        f"outs:\n- md5: {md5}\n  size: {size}\n  hash: md5\n  path: {name or path.name}\n"
    )
    return pinned


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_a_file_is_noted_by_digest_and_size(tmp_path: Path) -> None:
    """The name is that in the dataset, the digest that of the bytes."""
    [found] = files_of(few_in(tmp_path))
    content = (tmp_path / "panel.csv").read_bytes()
    assert found.name == "panel.csv"
    assert found.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert found.size == len(content)
    assert found.pin is None


def test_globs_are_sorted_and_lists_keep_their_order(tmp_path: Path) -> None:
    """A file that two entries name is one file."""
    for name in ("b/2.csv", "b/1.csv", "a.csv", "b/c/3.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    file = with_source(tmp_path, '["b/*.csv", "a.csv", "**/1.csv", "b/**/3.csv"]')
    assert [each.name for each in files_of(file)] == ["b/1.csv", "b/2.csv", "a.csv", "b/c/3.csv"]


def test_a_name_with_brackets_is_a_name_first(tmp_path: Path) -> None:
    """A file that exists is never taken for a glob."""
    write_csv(tmp_path / "panel[1].csv", small_columns())
    (tmp_path / "panel1.csv").write_text("x")
    assert [each.name for each in files_of(with_source(tmp_path, '"panel[1].csv"'))] == [
        "panel[1].csv"
    ]


def test_the_folder_of_the_data_is_no_glob(tmp_path: Path) -> None:
    """Whatever it is called; the glob is what stands in the dataset."""
    for name in ("data[1]", "data1"):
        (tmp_path / name).mkdir()
    write_csv(tmp_path / "data[1]" / "panel.csv", small_columns())
    (tmp_path / "data1" / "panel-2.csv").write_text("x")
    file = with_source(tmp_path, '"panel*.csv"')
    (tmp_path / "panel.csv").unlink()
    [found] = files_of(load_dataset(file.path, tmp_path / "data[1]"))
    assert found.name == "panel.csv"


def test_another_folder_may_hold_the_data(tmp_path: Path) -> None:
    """Relative sources are looked up there, and a file elsewhere goes by its bare name."""
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "panel.csv", small_columns())
    (tmp_path / "few.toml").write_text(FEW)
    file = load_dataset(tmp_path / "few.toml", tmp_path / "data")
    [found] = files_of(file)
    assert (found.name, found.path) == ("panel.csv", tmp_path / "data" / "panel.csv")
    elsewhere = str(tmp_path / "data" / "panel.csv")
    assert files_of(with_source(tmp_path, f'"{elsewhere}"'))[0].name == "data/panel.csv"
    nested = tmp_path / "nested"
    nested.mkdir()
    assert files_of(with_source(nested, f'"{elsewhere}"'))[0].name == "panel.csv"


def test_files_that_are_called_alike_are_told_apart(tmp_path: Path) -> None:
    """Outside of the dataset's folder too: each has as many folders in its name as that takes."""
    for name in ("north/2023/p.csv", "south/2023/p.csv", "south/q.csv", "home/p.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "north" / "2023" / "p.csv.dvc").write_text(
        f"outs:\n- md5: {md5_of(tmp_path / 'north/2023/p.csv')}\n  path: p.csv\n"
    )
    away = f'"{tmp_path}/north/2023/p.csv", "{tmp_path}/south/2023/p.csv", "{tmp_path}/south/q.csv"'
    found = files_of(with_source(tmp_path / "home", f'["p.csv", {away}]'))
    assert [each.name for each in found] == [
        "p.csv",
        "north/2023/p.csv",
        "south/2023/p.csv",
        "q.csv",
    ]
    assert found[1].pin is not None
    assert found[1].pin_name == "north/2023/p.csv.dvc"


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ('"none.csv"', NotFound, r"few.toml:3: source names .*none.csv, which does not exist"),
        ('"none-*.csv"', NotFound, r"source names .*none-\*.csv, which matches no file"),
        ('"parts"', UsageProblem, r"source names .*parts, which is a folder"),
        ('"s3://bucket"', UsageProblem, r"source names s3://bucket, which has no key"),
        (f'"{"a" * 5000}"', UsageProblem, r"a', which cannot be looked for: File name too long"),
    ],
)
def test_source_that_is_no_file_is_refused(
    tmp_path: Path, source: str, kind: type[ModelwireError], said: str
) -> None:
    """The message names the line of the dataset, and what was looked for."""
    (tmp_path / "parts").mkdir()
    with pytest.raises(kind, match=said) as caught:
        files_of(with_source(tmp_path, source))
    assert caught.value.hint


def test_missing_side_table_names_its_own_key(tmp_path: Path) -> None:
    """The second table of attributes is told from the first."""
    config = FEW + "".join(
        f'\n[[attributes]]\nkey = "shop"\nsource = "{name}"\ncolumns = ["{name[0]}"]\n'
        for name in ("a.csv", "b.csv")
    )
    (tmp_path / "a.csv").write_text("shop,a\n")
    with pytest.raises(NotFound, match=r"few.toml:18: attributes.1.source names .*b.csv"):
        files_of(few_in(tmp_path, config=config))


def test_data_as_pinned_are_read_and_the_pin_is_noted(tmp_path: Path) -> None:
    """The MD5 and the path of the pin are kept for the lineage."""
    file = few_in(tmp_path)
    path = tmp_path / "panel.csv"
    pin(path, md5_of(path))
    [found] = files_of(file)
    assert found.pin is not None
    assert (found.pin.md5, found.pin_name) == (md5_of(path), "panel.csv.dvc")
    assert panel_of(file).keys.series == 3


def test_data_other_than_pinned_are_refused(tmp_path: Path) -> None:
    """Both MD5s are in the message; the side tables are checked too."""
    file = few_in(tmp_path)
    path = tmp_path / "panel.csv"
    pin(path, "a" * 32)
    with pytest.raises(
        ModelwireError, match=f"its MD5 is {md5_of(path)} .* says {'a' * 32}"
    ) as caught:
        files_of(file)
    assert "dvc checkout panel.csv" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        "outs: []",
        "outs:\n- md5: 12\n  path: other.csv",
        "[",
        "",
        "outs:\n- path: panel.csv",
        "outs: 5",
    ],
)
def test_pin_that_says_nothing_of_the_file_is_refused(tmp_path: Path, content: str) -> None:
    """A pin that cannot be used must not look like one that was checked."""
    file = few_in(tmp_path)
    (tmp_path / "panel.csv.dvc").write_text(content)
    with pytest.raises(ModelwireError, match=r"panel.csv.dvc is no pin of panel.csv"):
        files_of(file)


@pytest.fixture
def bucket(stack: "RunningStack") -> Any:
    """A client of the S3 server."""
    s3 = stack.s3
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
    )


@pytest.mark.stack
def test_objects_are_sources_too(stack: "RunningStack", bucket: Any, tmp_path: Path) -> None:
    """A key or a glob of keys is copied, digested and read; the copies go with the block."""
    prefix = f"test-{uuid.uuid4().hex}"
    path = write_csv(tmp_path / "panel.csv", small_columns())
    header, *lines = path.read_text().splitlines(keepends=True)
    parts = {"year=1/b.csv": lines[60:], "year=1/a.csv": lines[:60], "year=1/deep/c.csv": lines}
    for name, part in parts.items():
        body = (header + "".join(part)).encode()
        bucket.put_object(Bucket=stack.bucket, Key=f"{prefix}/{name}", Body=body)
    expected = panel_of(few_in(tmp_path))
    s3 = S3Settings(stack.s3.endpoint, stack.s3.region, stack.s3.access_key, stack.s3.secret_key)
    address = f"s3://{stack.bucket}/{prefix}"
    file = with_source(tmp_path, f'"{address}/year=*/*.csv"')
    with open_sources(file, s3) as sources:
        assert [each.name for each in sources.all] == [
            f"{address}/year=1/a.csv",
            f"{address}/year=1/b.csv",
        ]
        paths = [each.path for each in sources.all]
        assert paths[0].read_text() == header + "".join(lines[:60])
        panel = read_panel(file, sources)
    assert (panel.units == expected.units).all()
    assert not any(path.exists() for path in paths)
    for source, said in (("none.csv", "there is no .*none.csv"), ("*.none", "matches no file")):
        with pytest.raises(NotFound, match=said):
            files_of(with_source(tmp_path, f'"{address}/{source}"'), s3)
