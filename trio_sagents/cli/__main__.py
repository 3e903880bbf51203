"""`python -m trio_sagents.cli` is `trio-sagents`."""

import sys

from trio_sagents.cli._main import main

sys.exit(main())
