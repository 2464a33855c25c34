"""``python -m xai_brain`` is ``xai-brain``."""

import sys

from xai_brain.cli import main

sys.exit(main())
