__version__ = "0.1.0"

import sys

if sys.version_info < (3, 10):
    raise ImportError("dlbook needs Python 3.10 or newer, and %s is Python %d.%d: make an environment with a newer Python and install dlbook there"
                      % ((sys.executable,) + tuple(sys.version_info[:2])))
