"""Any image over DDS is either the frame that its bytes say, or refused with the reason; nothing between."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from node_rig import FRAMES, TYPES, stamp, wait
from sensor_msgs.msg import Image

from d4rt_ros import conversions
from d4rt_ros.node.messages import RclpyMessages, TopicMessages
from d4rt_ros.srv import Query

# bytes of a pixel, and where red, green and blue are among its channels
LAYOUTS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}
UNKNOWN = ("", "8UC3", "jpeg", "RGB8", "\u00e9", "rgb8 ")


@st.composite
def images(draw):
    """An image, and either its pixels [H, W, 3] or what its refusal says."""
    encoding = draw(st.sampled_from([*LAYOUTS, *LAYOUTS, *UNKNOWN]))
    size, order = LAYOUTS.get(encoding, (3, ()))
    height, width = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    padding, missing = draw(st.sampled_from([0, 0, 3, -1])), draw(st.sampled_from([0, 0, -2, 1]))
    when = draw(st.sampled_from([stamp(0)] * 4 + [0, -1, -(2**31) * 10**9]))
    step = max(0, size * width + padding)
    length = max(0, step * height - missing)
    data = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, length).astype(np.uint8)
    message = Image(encoding=encoding, height=height, width=width, step=step, data=data.tobytes())
    message.header.stamp = conversions.time_message(TYPES, when)
    message.header.frame_id = draw(st.sampled_from(["camera", "", "x" * 300]))
    if encoding in UNKNOWN:
        return message, f"encoding '{encoding}' is not supported"
    if not height or not width:
        return message, f"image of {width}x{height} pixels has no content"
    if step < size * width:
        return message, f"step {step} is below the {size * width} bytes"
    if length < step * height:
        return message, f"data is truncated: {length} bytes"
    if when <= 0:
        return message, "header.stamp is zero"
    rows = data[: step * height].reshape(height, step)[:, : size * width].reshape(height, width, size)
    return message, rows[..., order]


def test_any_image_is_a_frame_or_a_refusal(rig, monkeypatch):
    counters, frames, kinds = rig.session.inputs.counters, [], set()
    pass_on = rig.session.inputs._on_frame

    def take(frame):
        frames.append((frame.image.copy(), frame.stamp, frame.frame_id))
        pass_on(frame)

    @settings(max_examples=150, deadline=None, phases=[Phase.generate])  # to shrink would take minutes
    @given(images())
    def show(case):
        message, expected = case
        frames.clear()
        before = counters.images, counters.refused
        rig.show(message)
        assert wait(lambda: counters.images - before[0] == counters.refused - before[1] + len(frames), 2)
        if isinstance(expected, str):
            assert frames == []
            assert counters.refusals["image"][0].startswith(f"image: {expected}")
            kinds.add(expected.split(" ")[0])
            return
        assert counters.refused == before[1]
        assert wait(lambda: "image" not in counters.refusals, 2)
        image, when, frame_id = frames[0]
        assert (when, frame_id) == (stamp(0), message.header.frame_id)
        np.testing.assert_array_equal(image, expected)
        kinds.add("good")

    with monkeypatch.context() as patch:
        patch.setattr(rig.session.inputs, "_on_frame", take)
        show()
    assert kinds >= {"good", "encoding", "image", "step", "data", "header.stamp"}
    rig.next = 0
    rig.play(FRAMES)
    assert rig.call(Query, "query", u=[1.0], v=[1.0]).success


@pytest.mark.parametrize("types", [RclpyMessages(), TopicMessages()])
def test_arrays_of_nothing_are_fields_like_others(types):
    """Such as the tracks of a question that no point answers with confidence."""
    for typecode, dtype in (("B", np.uint8), ("f", np.float32), ("I", np.uint32)):
        for shape in ((0,), (4, 0, 3), (3, 2)):
            values = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
            assert bytes(types.array(typecode, values)) == values.tobytes()
