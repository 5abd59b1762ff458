"""Start a job: `python -m jobs JOB [flags]`."""

import sys

from jobs.cli import main

sys.exit(main())
