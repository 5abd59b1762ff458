"""Where a submitted job finds its code and what came along, as JSON; then the job: `where.py FILE MODULE ...`."""

import json
import os
import runpy
import sys
from pathlib import Path

import factory

Path(sys.argv[1]).write_text(json.dumps({"factory": factory.__file__, "files": os.listdir()}))
module, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
