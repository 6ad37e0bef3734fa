"""Training: procedural 4D scenes, data sets, losses and the loop. Needs no ROS."""
