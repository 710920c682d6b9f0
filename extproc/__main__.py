"""`python -m extproc`: the same as the console script `llm-extproc`."""

import sys

from extproc.cli import main

sys.exit(main())
