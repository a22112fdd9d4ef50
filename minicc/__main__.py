"""python -m minicc: the command line."""

import sys

from minicc.cli import main

sys.exit(main())
