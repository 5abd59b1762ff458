"""Prompts from four formats, with hostile rows among good ones."""

from __future__ import annotations

import csv
import json
import re
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.ledger.keys import ID_PATTERN
from factory.prompts import input_formats, text_formats
from factory.prompts.prompt_table import _make_ids_unique, read_prompts
from factory.prompts.row import MAX_PROMPT_BYTES

GOOD = [("a red cup", 1), ("ein grüner Stuhl", 2), ('一把椅子, "quoted"', 3)]


def write(folder: Path, suffix: str) -> str:
    path = folder / f"prompts.{suffix}"
    rows = [{"prompt_id": f"p{seed}", "prompt": prompt, "seed": seed} for prompt, seed in GOOD]
    if suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    elif suffix == "csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["prompt_id", "prompt", "seed"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_formats_give_the_same_prompts(tmp_path: Path, suffix: str) -> None:
    table = read_prompts(write(tmp_path, suffix))
    assert [(p.prompt_id, p.prompt, p.seed) for p in table.prompts] == [(f"p{s}", text, s) for text, s in GOOD]
    assert not table.rejected


def test_ids_and_seeds_are_derived_and_stable(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a red cup\na blue cup\n")
    (tmp_path / "b.txt").write_text("a blue cup\na red cup")
    first, second = (read_prompts(str(tmp_path / name)).prompts for name in ("a.txt", "b.txt"))
    assert {(p.prompt_id, p.seed) for p in first} == {(p.prompt_id, p.seed) for p in second}
    assert len({p.prompt_id for p in first}) == len({p.seed for p in first}) == 2
    assert all(ID_PATTERN.fullmatch(p.prompt_id) and 0 <= p.seed < 2**31 for p in first)
    (tmp_path / "c.jsonl").write_text('{"prompt": "a red cup", "seed": 7}')
    other = read_prompts(str(tmp_path / "c.jsonl")).prompts[0]
    assert other.seed == 7
    assert other.prompt_id not in {p.prompt_id for p in first}


def test_columns_that_nobody_reads_may_repeat(tmp_path: Path) -> None:
    table = saved(tmp_path / "p.csv", b"prompt,note,note,,\na cup,1,2,,\n")
    assert [prompt.prompt for prompt in read_prompts(table).prompts] == ["a cup"]


def test_parquet_without_the_column_names_those_that_are_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "Prompt": ["a cup"]}), tmp_path / "p.parquet")
    with pytest.raises(ValueError, match="did you mean 'Prompt'"):
        read_prompts(str(tmp_path / "p.parquet"))


def test_seeds_may_be_written_as_pandas_writes_a_column_with_gaps(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,id,seed\na cup,a,7.0\na lamp,b,\na chair,c,1.5\na vase,d,.0\n")
    table = read_prompts(str(tmp_path / "p.csv"))
    assert [(row.prompt_id, row.seed == 7) for row in table.prompts] == [("a", True), ("b", False)]
    assert [(row.prompt_id, row.error_type) for row in table.rejected] == [("c", "InvalidSeed"), ("d", "InvalidSeed")]


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    assert [p.seed for p in read_prompts(write(tmp_path, "csv"), limit=2).prompts] == [1, 2]
    with pytest.raises(ValueError, match="at least 1"):
        read_prompts(write(tmp_path, "csv"), limit=0)


HOSTILE = [
    (b'{"prompt": ""}', "EmptyPrompt"),
    (b'{"prompt": "   "}', "EmptyPrompt"),
    (b'{"prompt": null}', "EmptyPrompt"),
    (b'{"id": "nothing"}', "EmptyPrompt"),
    (b'{"prompt": "' + b"x" * 100_000 + b'"}', "PromptTooLong"),
    (b'{"prompt": "bad \xff\xfe bytes"}', "InvalidUtf8"),
    (b'{"prompt": "lone \\ud800 surrogate"}', "InvalidUtf8"),
    (b'{"prompt": "bell \\u0007"}', "InvalidPrompt"),
    (b'{"prompt": 7}', "InvalidPrompt"),
    (b'{"prompt": ["a", "b"]}', "InvalidPrompt"),
    (b'{"prompt": "x", "id": "../../etc/passwd"}', "InvalidId"),
    (b'{"prompt": "x", "id": "a/b"}', "InvalidId"),
    (b'{"prompt": "x", "id": ".hidden"}', "InvalidId"),
    (b'{"prompt": "x", "id": "' + b"i" * 300 + b'"}', "InvalidId"),
    (b'{"prompt": "x", "id": {"a": 1}}', "InvalidId"),
    (b'{"prompt": "x", "id": "good"}', "DuplicateId"),
    (b'{"prompt": "x", "seed": -1}', "InvalidSeed"),
    (b'{"prompt": "x", "seed": "many"}', "InvalidSeed"),
    (b'{"prompt": "x", "seed": 1.5}', "InvalidSeed"),
    (b'{"prompt": "x", "seed": 1e400}', "InvalidSeed"),
    (b'{"prompt": "x", "seed": true}', "InvalidSeed"),
    (b'{"prompt": "x", "size_metres": 0}', "InvalidSize"),
    (b'{"prompt": "x", "size_metres": "2 m"}', "InvalidSize"),
    (b'{"prompt": "x", "size_metres": true}', "InvalidSize"),
    (b'{"prompt": "x", "size_metres": 1e400}', "InvalidSize"),
    (b'{"prompt": "x", "seed": "1_0"}', "InvalidSeed"),
    ('{"prompt": "x", "seed": "\u0663"}'.encode(), "InvalidSeed"),
    (b'{"prompt": "x", "prompt": "y"}', "UnreadableRow"),
    (b'{"prompt": "x", "image": "http://169.254.169.254/latest"}', "UnreadableImage"),
    (b'{"prompt": "x", "image": "/etc/passwd"}', "UnreadableImage"),
    (b'{"prompt": "x", "image": "../secret.png"}', "UnreadableImage"),
    (b'{"prompt": "x", "image": "missing.png"}', "UnreadableImage"),
    (b'{"prompt": "x", "image": "nul\\u0000.png"}', "UnreadableImage"),
    (b'{"prompt": "x", "image": 12}', "UnreadableImage"),
    (b"not json", "UnreadableRow"),
    (b'["a list"]', "UnreadableRow"),
    (b"[" * 100_000, "UnreadableRow"),
]


def test_sizes_may_have_gaps_and_change_no_identity(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a cup", "a dog", "an ant"], "size_metres": [0.12, float("nan"), None]})
    pq.write_table(table, tmp_path / "sized.parquet")
    pq.write_table(table.select(["prompt"]), tmp_path / "plain.parquet")
    sized, plain = (read_prompts(str(tmp_path / name)).prompts for name in ("sized.parquet", "plain.parquet"))
    assert {prompt.prompt: prompt.size_metres for prompt in sized} == {"a cup": 0.12, "a dog": None, "an ant": None}
    assert {prompt.size_metres for prompt in plain} == {None}
    assert {(p.prompt_id, p.seed) for p in sized} == {(p.prompt_id, p.seed) for p in plain}


def test_hostile_rows_are_rejected_one_by_one(tmp_path: Path) -> None:
    lines = [
        b'{"prompt": "a cup", "id": "good"}',
        *[line for line, _ in HOSTILE],
        b'{"prompt": "a lamp", "id": "last"}',
    ]
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "prompts.jsonl").write_bytes(b"\n".join(lines))
    table = read_prompts(str(folder / "prompts.jsonl"))
    assert [p.prompt_id for p in table.prompts] == ["good", "last"]
    assert [row.error_type for row in table.rejected] == [kind for _, kind in HOSTILE]
    ids = [row.prompt_id for row in table.rejected]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {"good", "last"}
    assert all(len(row.prompt) < 300 and len(row.error_message) < 500 for row in table.rejected)
    again = read_prompts(str(folder / "prompts.jsonl"))
    assert [row.prompt_id for row in again.rejected] == ids
    assert str(MAX_PROMPT_BYTES) in table.rejected[4].error_message


def test_repeats_of_the_same_row_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cup\na cup\na cup\n")
    table = read_prompts(str(tmp_path / "p.txt"))
    assert len(table.prompts) == 1
    assert [r.prompt_id for r in table.rejected] == [f"{table.prompts[0].prompt_id}~{n}" for n in (2, 3)]
    assert "repeats row 1" in table.rejected[0].error_message


def test_blank_line_within_a_text_file_is_an_empty_prompt(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbfa cup\n\na lamp\r\n\n\n")
    table = read_prompts(str(tmp_path / "p.txt"))
    assert [p.prompt for p in table.prompts] == ["a cup", "a lamp"]
    assert [r.error_type for r in table.rejected] == ["EmptyPrompt"]


def test_invalid_utf8_costs_its_own_row_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"a cup\nb\xff\na lamp\n")
    (tmp_path / "p.csv").write_bytes(b"prompt,seed\na cup,1\nb\xff,2\na lamp,3\n")
    bad = pa.array([b"a cup", b"b\xff", b"a lamp"]).view(pa.string())
    pq.write_table(pa.table({"prompt": bad}), tmp_path / "p.parquet")
    for suffix in ("txt", "csv", "parquet"):
        table = read_prompts(str(tmp_path / f"p.{suffix}"))
        assert [p.prompt for p in table.prompts] == ["a cup", "a lamp"], suffix
        assert [r.error_type for r in table.rejected] == ["InvalidUtf8"], suffix


def test_images_come_from_bytes_and_from_below_the_table(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(b"A")
    rows = [
        {"prompt": "x", "image": {"bytes": b"B", "path": None}},
        {"prompt": "", "image": {"bytes": b"C", "path": None}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    (tmp_path / "p.csv").write_text("prompt,image\nx,pictures/a.png\n")
    assert [p.image for p in read_prompts(str(tmp_path / "p.parquet")).prompts] == [b"B", b"C"]
    assert [p.image for p in read_prompts(str(tmp_path / "p.csv")).prompts] == [b"A"]
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    assert read_prompts(str(tmp_path / "p.csv"), image_root=str(outside)).rejected[0].error_type == "UnreadableImage"


def test_image_file_without_bytes_is_no_row_without_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "p.csv").write_text("prompt,image\nx,a.png\ny,\n")
    table = read_prompts(str(tmp_path / "p.csv"))
    assert [(p.prompt, p.image) for p in table.prompts] == [("y", None)]
    assert [(r.error_type, r.error_message) for r in table.rejected] == [
        ("UnreadableImage", "image 'a.png' has no bytes; write it again")
    ]


def test_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "table").mkdir()
    (tmp_path / "table/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "table/p.csv").write_text("prompt,image\nx,link.png\n")
    assert read_prompts(str(tmp_path / "table/p.csv")).rejected[0].error_type == "UnreadableImage"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b"", "the table is empty"),
        ("p.csv", b"prompt,seed\n", "the table is empty"),
        ("p.csv", b"text,seed\na cup,1\n", "no column 'prompt'. Available: text, seed"),
        ("p.jsonl", b'{"text": "a cup"}\n', "no column 'prompt'. Available: text"),
        ("p.csv", b"id, Prompt\na,a cup\n", "no column 'prompt'; did you mean ' Prompt'? Rename it to 'prompt'"),
        ("p.jsonl", b'{"promt": "a cup"}\n', "no column 'prompt'; did you mean 'promt'?"),
        ("p.csv", b"prompt,seed,prompt\na cup,1,a lamp\n", "column 'prompt' comes 2 times; keep one"),
        ("p.jsonl", b'[{"prompt": "a cup"}, {"prompt": "a lamp"}]', "a JSON array; write one object a line"),
        ("p.jsonl", b'[\n  {"prompt": "a cup"},\n  {"prompt": "a lamp"}\n]\n', "a JSON array; write one object a line"),
        ("p.parquet", b"PAR1 not really", "not a readable parquet file"),
        ("p.xml", b"<prompt/>", "format 'xml' is not supported. Available: txt, csv, tsv, jsonl, parquet"),
        ("p.csv", b'prompt\n"unclosed', "never closed"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_prompts(str(tmp_path / name))


def test_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        read_prompts(str(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="scheme not supported"):
        read_prompts("http://127.0.0.1/prompts.jsonl")


def saved(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_badly_quoted_csv_row_costs_itself_only(tmp_path: Path) -> None:
    table = saved(tmp_path / "p.csv", b'prompt_id,prompt\na,a car\nb,"bad"quote\nc,a chair\n')
    read = read_prompts(table)
    assert [prompt.prompt_id for prompt in read.prompts] == ["a", "c"]
    assert "badly quoted" in read.rejected[0].error_message


def test_unusable_row_leaves_its_id_to_a_good_one(tmp_path: Path) -> None:
    rows = b'{"prompt_id":"x","prompt":""}\n{"prompt_id":"x","prompt":"a green chair"}\n'
    read = read_prompts(saved(tmp_path / "p.jsonl", rows))
    assert [(prompt.prompt_id, prompt.prompt) for prompt in read.prompts] == [("x", "a green chair")]
    assert [(row.prompt_id, row.error_type) for row in read.rejected] == [("x~2", "EmptyPrompt")]


def test_utf16_csv_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is UTF-16: save it as UTF-8"):
        read_prompts(saved(tmp_path / "p.csv", "prompt\na car\n".encode("utf-16")))
    with pytest.raises(ValueError, match="not UTF-8 text"):
        read_prompts(saved(tmp_path / "p.csv", "prompt\na car\n".encode("utf-16-le")))


def test_line_beyond_the_limit_costs_its_own_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_formats, "MAX_LINE_BYTES", 1000)
    long = "y" * 5000
    table = saved(tmp_path / "p.jsonl", f'{{"prompt":"a"}}\n{{"prompt":"{long}"}}\n{{"prompt":"b"}}\n'.encode())
    assert [prompt.prompt for prompt in read_prompts(table).prompts] == ["a", "b"]
    assert "MiB; shorten it" in read_prompts(table).rejected[0].error_message
    table = saved(tmp_path / "p.csv", f"prompt\na\n{long}\nb\n".encode())
    assert [prompt.prompt for prompt in read_prompts(table).prompts] == ["a", "b"]


def test_only_known_columns_of_parquet_are_decoded(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a cup"], "other": [b"\xff" * 100], "seed": [3]})
    pq.write_table(table, tmp_path / "p.parquet")
    rows = list(input_formats.read_rows(str(tmp_path / "p.parquet"), columns=("prompt", "seed")))
    assert [row.values for row in rows] == [{"prompt": "a cup", "seed": 3}]


def test_pictures_wait_on_disk(tmp_path: Path) -> None:
    images = [bytes([n]) * (1 << 20) for n in range(40)]
    pq.write_table(pa.table({"prompt": ["x"] * 40, "seed": range(40), "image": images}), tmp_path / "p.parquet")
    tracemalloc.start()
    read = read_prompts(str(tmp_path / "p.parquet"))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4 << 20
    assert [prompt.image for prompt in read.prompts] == images


def test_many_rows_with_the_same_fault_are_named_in_linear_time(tmp_path: Path) -> None:
    table = saved(tmp_path / "p.jsonl", b'{"prompt":""}\n' * 3000)
    looked_up = 0

    class Seen(dict):
        def __contains__(self, key: object) -> bool:
            nonlocal looked_up
            looked_up += 1
            return super().__contains__(key)

    rejected = read_prompts(table).rejected
    assert len({row.prompt_id for row in rejected}) == 3000
    for row in rejected:
        row.prompt_id = "same"
    _make_ids_unique(rejected, Seen())
    assert looked_up < 3 * len(rejected)
