"""Pools in their compact form, merged setting by setting."""

from __future__ import annotations

import pytest

from factory.line.pool_flags import Pools, compact, merged, parse_pools


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        ("video=2", {"actors": 2}),
        ("video=2x0.5gpu", {"actors": 2, "gpus": 0.5}),
        ("video=0.5gpu,2cpu", {"gpus": 0.5, "cpus": 2.0}),
        ("video=4-16x1cpu,batch=8", {"actors": 4, "max_actors": 16, "cpus": 1.0, "batch": 8}),
        ("video=row_timeout=600,max_growth_gb=1.5", {"row_timeout": 600, "max_growth_gb": 1.5}),
        ("video=max_rows=none", {"max_rows": None}),
        ("video=labels=a/b=H100,labels=zone=x", {"labels": ("a/b=H100", "zone=x")}),
    ],
)
def test_compact_form_is_read_and_written(spec: str, settings: dict) -> None:
    pools = parse_pools([spec])
    assert pools == {"video": settings}
    assert parse_pools(compact(pools)) == pools


@pytest.mark.parametrize("spec", ["video", "video=", "=2", "video=2x", "video=2x3", "video=2 gpu", "video=2,,3"])
def test_other_forms_are_refused_with_the_right_one(spec: str) -> None:
    with pytest.raises(ValueError, match=r"line\.pools has .*; write STAGE=ACTORS"):
        parse_pools([spec])


def test_unknown_settings_and_words_are_named() -> None:
    with pytest.raises(ValueError, match=r"'btch' in 'video=btch=3'; did you mean batch\?"):
        parse_pools(["video=btch=3"])
    with pytest.raises(ValueError, match=r"batch='many' in .*; batch is a number"):
        parse_pools(["video=batch=many"])


def test_settings_are_merged_one_by_one() -> None:
    base = Pools(all={"gpus": 0.16}, video={"actors": 2, "batch": 4})
    assert merged(base, {"video": {"batch": 1}, "views": {"actors": 3}}) == {
        "all": {"gpus": 0.16},
        "video": {"actors": 2, "batch": 1},
        "views": {"actors": 3},
    }
