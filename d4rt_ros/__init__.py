"""D4RT for ROS 2: a window of camera frames is encoded once, then everything is a point query against it.

`model`, `tasks`, `stream`, `training`, `evaluation` and `bag` need no ROS; `node` is the ROS 2 node; `msg`,
`srv` and `action` are generated from the interface files when the package is built.
"""

from pkgutil import extend_path

# The source tree has no msg, srv and action, the installed package has: both are used.
__path__ = extend_path(__path__, __name__)

__version__ = "0.1.0"
