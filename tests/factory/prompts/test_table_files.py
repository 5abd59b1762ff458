"""Tables of many files, packed ones, and files that are no table."""

from __future__ import annotations

import errno
import gzip
import os
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.prompts.assets import read_assets
from factory.prompts.plain_batches import plain_rows
from factory.prompts.prompt_table import PromptTable, read_prompts
from factory.prompts.raw_rows import Batch
from factory.prompts.table_files import table_root
from jobs import prompts
from recon.user_error import UserError

TEXTS = {
    "csv": b"prompt_id,prompt\n1,a chair\n2,\"a, table\"\n",
    "tsv": b"prompt_id\tprompt\n1\ta chair\n2\ta, table\n",
    "jsonl": b'{"prompt_id": 1, "prompt": "a chair"}\n{"prompt_id": 2, "prompt": "a, table"}\n',
}  # fmt: skip


def ids(table: PromptTable) -> list[str]:
    assert not table.rejected
    return [prompt.prompt_id for prompt in table.prompts]


def shard(path: Path, *names: str, **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"prompt_id": names, "prompt": [f"a {name}" for name in names]} | columns), path)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """As Spark writes a partitioned table."""
    for split in ("a", "b%20c"):
        for number in (0, 1):
            shard(
                tmp_path / f"t/seed=7/part={split}/part-{number}.parquet",
                f"{split[0]}{number}x",
                f"{split[0]}{number}y",
            )
    (tmp_path / "t/_SUCCESS").touch()
    (tmp_path / "t/seed=7/part=a/.part-0.parquet.crc").write_bytes(b"crc")
    (tmp_path / "t/README.txt").write_text("not a prompt")
    return tmp_path / "t"


@pytest.mark.parametrize("form", ["{0}", "{0}/", "{0}/**/*.parquet", "{0}/seed=7/*/part-?.parquet"])
def test_a_folder_or_pattern_of_shards_is_one_table(shards: Path, form: str) -> None:
    table = read_prompts(form.format(shards))
    assert ids(table) == ["a0x", "a0y", "a1x", "a1y", "b0x", "b0y", "b1x", "b1y"]
    assert {prompt.seed for prompt in table.prompts} == {7}  # a hive partition is a column
    assert ids(read_prompts(str(shards), limit=3)) == ["a0x", "a0y", "a1x"]


def test_partitions_are_columns_of_assets_too(tmp_path: Path) -> None:
    for split in ("train", "val"):
        folder = tmp_path / f"a/split={split}"
        folder.mkdir(parents=True)
        (folder / "p.csv").write_text(f"path,caption\n{split}.glb,a box\n")
    assert [(row["path"], row["split"]) for row in read_assets(str(tmp_path / "a"))] == [
        ("train.glb", "train"),
        ("val.glb", "val"),
    ]


def test_ids_that_repeat_across_shards_are_rejected_by_their_place_in_the_table(tmp_path: Path) -> None:
    shard(tmp_path / "t/0.parquet", "x", "y")
    shard(tmp_path / "t/1.parquet", "z", "x", "x")
    table = read_prompts(str(tmp_path / "t"))
    assert [prompt.prompt_id for prompt in table.prompts] == ["x", "y", "z"]
    assert [(row.prompt_id, row.error_message.split(";")[0]) for row in table.rejected] == [
        ("x~2", "prompt_id 'x' repeats row 1"),
        ("x~3", "prompt_id 'x' repeats row 1"),
    ]
    assert [table.prompts[place].prompt for place in (2, -1, 0)] == ["a z", "a z", "a x"]
    assert [table.prompts.ids[place] for place in range(3)] == ["x", "y", "z"]


def test_whole_columns_and_single_rows_give_the_same_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "prompt_id": ["a", None, "", "b c", "d", "e", None],
        "prompt": ["a cup", "ein grüner Stuhl", " spaces ", "x", "bell\x07", "y" * 5000, "🙂"],
        "seed": [1, None, 3, 4, None, 6, -1],
    }
    pq.write_table(pa.table(rows), tmp_path / "p.parquet")
    plain = plain_rows(Batch(first=1, columns=pa.record_batch(rows)))
    assert plain is not None
    assert plain.places.tolist() == [0, 1]
    at_once = read_prompts(str(tmp_path / "p.parquet"))
    monkeypatch.setattr("factory.prompts.prompt_table.plain_rows", lambda batch: None)
    one_by_one = read_prompts(str(tmp_path / "p.parquet"))
    assert sorted((p.prompt_id, p.prompt, p.seed) for p in at_once.prompts) == sorted(
        (p.prompt_id, p.prompt, p.seed) for p in one_by_one.prompts
    )
    assert at_once.rejected == one_by_one.rejected
    assert len(at_once.prompts) == 3


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("packing", ["", "gz", "zst"])
def test_texts_may_be_packed(tmp_path: Path, kind: str, packing: str) -> None:
    data = TEXTS[kind]
    packed = {
        "": data,
        "gz": gzip.compress(data[:20]) + gzip.compress(data[20:]),
        "zst": pa.compress(data, "zstd", True),
    }
    path = tmp_path / f"p.{kind}{'.' * bool(packing)}{packing}"
    path.write_bytes(packed[packing])
    assert [(prompt.prompt_id, prompt.prompt) for prompt in read_prompts(str(path)).prompts] == [
        ("1", "a chair"),
        ("2", "a, table"),
    ]


@pytest.mark.parametrize("cut", [slice(0, -12), slice(0, 30)])
def test_a_packed_table_that_is_cut_off_is_refused(tmp_path: Path, cut: slice) -> None:
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(TEXTS["csv"] * 100)[cut])
    with pytest.raises(UserError, match=r"p\.csv\.gz: cannot be read: Truncated compressed stream"):
        read_prompts(str(tmp_path / "p.csv.gz"))


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("last", ["", "\n"])
@pytest.mark.parametrize("kind", TEXTS)
def test_line_ends_of_every_system(tmp_path: Path, end: str, last: str, kind: str) -> None:
    path = tmp_path / f"p.{kind}"
    path.write_bytes(TEXTS[kind].strip().replace(b"\n", end.encode()) + end.encode() + last.encode())
    assert ids(read_prompts(str(path))) == ["1", "2"]


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (pa.array([1.0, None, 4.0, float("nan")]), ["1", None, "4", None]),
        (pa.array([1, 2, None, 2**60]), ["1", "2", None, str(2**60)]),
        (pa.array([b"abc", None, b"x-1", b""]), ["abc", None, "x-1", None]),
        (pa.array([Decimal("3"), Decimal("5"), None, None]), ["3", "5", None, None]),
        (pa.array([UUID(int=n).bytes for n in range(4)], pa.uuid()), [str(UUID(int=n)) for n in range(4)]),
        (pa.array(["a", "b", "a", "c"]).dictionary_encode().cast(pa.string()), ["a", "b", None, "c"]),
    ],
    ids=["floats", "integers", "bytes", "decimals", "uuids", "text"],
)
def test_ids_of_other_types(tmp_path: Path, column: pa.Array, wanted: list[str | None]) -> None:
    pq.write_table(pa.table({"prompt_id": column, "prompt": list("wxyz")}), tmp_path / "p.parquet")
    found = {prompt.prompt: prompt.prompt_id for prompt in read_prompts(str(tmp_path / "p.parquet")).prompts}
    for prompt, name in zip("wxyz", wanted, strict=True):
        if name is not None:
            assert found[prompt] == name
        elif prompt in found:
            assert len(found[prompt]) == 32  # derived


def test_ids_that_are_none_cost_their_row(tmp_path: Path) -> None:
    values = [b"abc", b"\xff\xfe"]
    pq.write_table(pa.table({"prompt_id": values, "prompt": ["a", "b"]}), tmp_path / "p.parquet")
    table = read_prompts(str(tmp_path / "p.parquet"))
    assert [prompt.prompt_id for prompt in table.prompts] == ["abc"]
    assert table.rejected[0].error_type == "InvalidUtf8"
    pq.write_table(
        pa.table({"prompt_id": pa.array([1, 2], pa.timestamp("s")), "prompt": ["a", "b"]}), tmp_path / "p.parquet"
    )
    assert [row.error_type for row in read_prompts(str(tmp_path / "p.parquet")).rejected] == ["InvalidId"] * 2


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.csv", b'"prompt_id,prompt\n1,a chair\n', "a quote opened in the first line is never closed"),
        ("p.csv", b'prompt_id,"prompt"x\n1,a chair\n', "the first line is ',' expected after '\"'"),
        ("p.csv", gzip.compress(TEXTS["csv"], mtime=0), "is gzip-compressed: end its name in .gz"),
        ("p.jsonl", pa.compress(TEXTS["csv"], "zstd", True), "is zstd-compressed: end its name in .zst"),
        ("p.csv", b"PK\x03\x04xl/workbook.xml", "is a zip archive, as xlsx files are: save the table as CSV"),
        ("p.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", "is an old Excel file"),
        ("p.txt", b"PAR1\x15\x04", "is a parquet file: end its name in .parquet"),
        ("p.csv", "prompt,id\na,1\n".encode("utf-32"), "is UTF-32: save it as UTF-8"),
        ("p.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
        ("p.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
        ("p.txt", b"<!DOCTYPE html>\n<html>404</html>\n", "is a web page: fetch the table itself"),
        ("p.csv", b"id;prompt\n1;a chair\n", "its columns are separated by ';': save it with commas"),
        ("p.csv", b"prompt\tid\na chair\t1\n", "its columns are separated by '\\t': end its name in .tsv"),
        ("p.csv.gz", TEXTS["csv"], "cannot be read"),
        ("p.parquet", TEXTS["csv"], "not a readable parquet file"),
        ("p.arrow", TEXTS["csv"], "not a readable arrow file"),
        ("p.parquet.gz", b"", "format 'gz' is not supported"),
        ("p.csv.bz2", b"", "format 'bz2' is not supported"),
    ],
)  # fmt: skip
def test_files_that_are_no_table_are_one_sentence(
    tmp_path: Path, name: str, data: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    assert prompts.main(["--prompts", str(tmp_path / name)]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert len(told.splitlines()) == 1


def test_a_damaged_page_is_found_by_its_checksum(tmp_path: Path) -> None:
    table = pa.table({"prompt": [f"a cup number {n}" for n in range(1000)]})
    pq.write_table(table, tmp_path / "p.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray((tmp_path / "p.parquet").read_bytes())
    at = data.index(b"number 500")
    data[at : at + 10] = b"number 5OO"
    (tmp_path / "p.parquet").write_bytes(data)
    with pytest.raises(UserError, match=r"not a readable parquet file: .*(corrupt|CRC|checksum)"):
        read_prompts(str(tmp_path / "p.parquet"))


def test_folders_of_hugging_face_data_sets(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"prompt_id": ["a", "b", "c"], "prompt": ["x", "y", "z"]})
    rows.save_to_disk(tmp_path / "saved", num_shards=2)
    assert ids(read_prompts(str(tmp_path / "saved"))) == ["a", "b", "c"]
    datasets.DatasetDict({"train": rows.select([0]), "test": rows.select([1, 2])}).save_to_disk(tmp_path / "splits")
    assert sorted(ids(read_prompts(str(tmp_path / "splits")))) == ["a", "b", "c"]
    (tmp_path / "hub/data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet")
    (tmp_path / "hub/README.md").write_text("# a data set\n")
    assert ids(read_prompts(str(tmp_path / "hub"))) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("_delta_log/0.json", "is a Delta table; write its rows as parquet files: python -c .*read_delta"),
        ("_versions/1.manifest", "is a Lance data set; .*read_lance"),
        ("metadata/v1.metadata.json", "is an Iceberg table; .*read_iceberg"),
        ("more.csv", "holds files of csv, parquet; name those that are meant, as .*/\\*.parquet"),
    ],
)
def test_folders_that_are_no_plain_shards_are_named(tmp_path: Path, place: str, message: str) -> None:
    shard(tmp_path / "t/part-0.parquet", "a")
    (tmp_path / "t" / place).parent.mkdir(exist_ok=True)
    (tmp_path / "t" / place).write_bytes(b"{}")
    with pytest.raises(UserError, match=message):
        read_prompts(str(tmp_path / "t"))


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    for name, message in (
        ("*.parquet", "no table has such a name"),
        ("", "the folder holds no table"),
        ("x.csv", "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            read_prompts(f"{tmp_path}/{name}")


def test_paths_are_relative_to_the_folder_of_the_table(tmp_path: Path) -> None:
    assert table_root("a/b.csv") == table_root("a/b.csv.gz") == table_root("a/*.csv") == table_root("a/x?/b") == "a"
    assert table_root("b.csv") == table_root("*.csv") == "."
    assert table_root("s3://b/t/") == table_root("s3://b/t/part-*.parquet") == "s3://b/t"
    (tmp_path / "t.parquet").mkdir()
    assert table_root(str(tmp_path / "t.parquet")) == str(tmp_path / "t.parquet")


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    pq.write_table(pa.table({"prompt": ["x"], "image": [b"picture"]}), tmp_path / "p.parquet")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="where the rows of the table wait, is full: free space, or name another"):
        read_prompts(str(tmp_path / "p.parquet"))
