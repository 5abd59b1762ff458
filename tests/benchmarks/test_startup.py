"""Import times are each module's own, added up by package."""

import pytest

from benchmarks.startup import import_seconds


def test_own_times_are_added_up_by_package() -> None:
    trace = "import time: self [us] | cumulative | imported package\n"
    trace += "import time:       100 |        100 |   numpy.core\nimport time:      2000 |       2100 | numpy\n"
    trace += "a warning\nimport time:       500 |        500 |     torch.nn\n"
    assert import_seconds(trace) == {"numpy": pytest.approx(0.0021), "torch": pytest.approx(0.0005)}
