"""dstack: ML workflows on your own servers over SSH, without a central server.

This module imports nothing, so that `import dstack.runner` costs nothing on a host.
"""

__version__ = "0.1.0"
