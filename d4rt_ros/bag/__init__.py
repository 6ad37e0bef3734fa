"""The live pipeline over recordings, without ROS: rosbag2 in, rosbag2 out (`d4rt bag`, `d4rt video`)."""
