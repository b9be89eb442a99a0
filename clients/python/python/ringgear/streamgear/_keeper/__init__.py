"""The keeper: a process of its own between a script and its private daemon. It starts the daemon, writes the manifest where
the script wants it, and stops the daemon in good order when the script says so or is gone, however it died.

It is run without the rest of the package, and needs nothing but Python: see `command`.
"""

from __future__ import annotations

import os
import sys
from typing import Sequence

_BOOT = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module('_keeper', run_name='__main__', alter_sys=True)"


def command(job: str) -> Sequence[str]:
    """The command line of a keeper with the job in the file `job`."""
    python = sys.executable or "python3"
    return [python, "-I", "-S", "-c", _BOOT, os.path.dirname(os.path.dirname(os.path.abspath(__file__))), job]
