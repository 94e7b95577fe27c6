"""`python -m harness` is `llmatrix`."""

import sys

from harness.cli import main

sys.exit(main())
