"""The D4RT network: configuration, encoding, queries, checkpoints. Needs torch and nothing of ROS."""

from d4rt_ros.model.checkpoints import CheckpointError, load_model, save_weights
from d4rt_ros.model.config import ModelConfig, named_config
from d4rt_ros.model.network import D4RT
from d4rt_ros.model.queries import Answers, Queries, SceneLike
from d4rt_ros.model.scene import Scene

__all__ = [
    "D4RT",
    "Answers",
    "CheckpointError",
    "ModelConfig",
    "Queries",
    "Scene",
    "SceneLike",
    "load_model",
    "named_config",
    "save_weights",
]
