"""Messages as they arrive: through real bytes (CDR), and clouds as columns. Needs no ROS."""

import numpy as np

from d4rt_ros.bag.messages import BagMessages

TYPES = BagMessages()


def sent(message):
    """The message as it arrives."""
    return TYPES.deserialize(TYPES.serialize(message, message.__msgtype__), message.__msgtype__)


def points(message):
    """Columns of a PointCloud2 by name, of rclpy or of rosbags."""
    kind = {7: "<f4", 6: "<u4"}
    layout = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [kind[field.datatype] for field in message.fields],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    return np.frombuffer(np.asarray(message.data).tobytes(), layout)
