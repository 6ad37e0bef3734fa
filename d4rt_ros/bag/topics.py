"""Which topics of a recording are used, found by type and name or given."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF = "tf2_msgs/msg/TFMessage"
TF_TOPICS = ("/tf", "/tf_static")

# Words in the names of image topics that are no colour camera.
NOT_COLOUR = ("depth", "disparity", "infra", "confidence", "mask", "label")


@dataclass(frozen=True)
class Topics:
    """Topics that are read; empty where a kind is not."""

    image: str
    camera_info: str = ""
    depth: str = ""
    transforms: tuple[str, ...] = ()

    def all(self) -> list[str]:
        """All of them."""
        return [topic for topic in (self.image, self.camera_info, self.depth, *self.transforms) if topic]


def choose_topics(
    types: dict[str, str],
    image: str = "",
    camera_info: str = "",
    depth: str = "",
    with_depth: bool = False,
    with_transforms: bool = False,
) -> Topics:
    """Choose the topics of a recording.

    Args:
        types: message type of every topic in it.
        image: colour images; empty: the only ones there are, raw before compressed.
        camera_info: empty: the sibling of the images (as image_transport names it), if there is one; "none":
            not used.
        depth: depth images; empty: the only ones there are.
        with_depth: depth images are needed.
        with_transforms: /tf and /tf_static are needed.

    Raises:
        ValueError: a named topic is not there or has another type, or it is not clear which one is meant.
    """
    images = {topic for topic, kind in types.items() if kind in (IMAGE, COMPRESSED)}
    colour = {topic for topic in images if not any(word in topic.lower() for word in NOT_COLOUR)}
    image = _named(types, image, (IMAGE, COMPRESSED)) or _only(colour, "image", "--image")
    sibling = image_base(image).rsplit("/", 1)[0] + "/camera_info"
    if camera_info == "none":
        camera_info = ""
    elif camera_info:
        camera_info = _named(types, camera_info, (CAMERA_INFO,))
    elif types.get(sibling) == CAMERA_INFO:
        camera_info = sibling
    if with_depth:
        deep = {topic for topic in images if "depth" in topic.lower()}
        depth = _named(types, depth, (IMAGE, COMPRESSED)) or _only(deep, "depth image", "--depth")
    else:
        depth = ""
    transforms = tuple(topic for topic in TF_TOPICS if types.get(topic) == TF) if with_transforms else ()
    if with_transforms and not transforms:
        raise ValueError(
            "the recording has no /tf, which these settings need (scale.source, tf.mode, frames.base)"
        )
    return Topics(image, camera_info, depth, transforms)


def image_base(topic: str) -> str:
    """Name of the raw images that a compressed topic belongs to; a raw topic's own name."""
    head, _, transport = topic.rpartition("/")
    return head if transport in ("compressed", "compressedDepth") else topic


def _named(types: dict[str, str], topic: str, kinds: Collection[str]) -> str:
    if not topic:
        return ""
    if topic not in types:
        raise ValueError(f"the recording has no topic {topic}; it has {', '.join(sorted(types)) or 'none'}")
    if types[topic] not in kinds:
        raise ValueError(f"topic {topic} has type {types[topic]}; it must be {' or '.join(kinds)}")
    return topic


def _only(topics: Collection[str], kind: str, option: str) -> str:
    bases = {image_base(topic) for topic in topics}
    if not bases:
        raise ValueError(f"no {kind} topic found in the recording; name one with {option}")
    if len(bases) > 1:
        raise ValueError(f"several {kind} topics: {', '.join(sorted(topics))}; name one with {option}")
    return min(topics, key=lambda topic: (topic not in bases, topic))
