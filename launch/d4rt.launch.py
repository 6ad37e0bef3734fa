"""Starts the D4RT node on a camera: `ros2 launch d4rt_ros d4rt.launch.py image:=/camera/color/image_raw`."""

from ament_index_python.packages import get_package_share_directory
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = get_package_share_directory("d4rt_ros")

# Name, default, what it is for.
ARGUMENTS = (
    ("image", "/camera/image_raw", "topic of the camera's images, without the suffix /compressed"),
    (
        "camera_info",
        "/camera/camera_info",
        "topic of the camera's calibration; without it intrinsics are estimated",
    ),
    ("depth", "/camera/depth/image_raw", "topic of a depth camera, for the parameter scale.source: depth"),
    ("namespace", "", "namespace of the node, for more than one camera"),
    ("params_file", SHARE + "/config/d4rt.yaml", "parameters of the node"),
    ("checkpoint", "", "weights: a path or 'builtin'; empty: as in params_file"),
    ("device", "", "auto, cpu or cuda:N; empty: as in params_file"),
    ("use_sim_time", "", "true with a simulator or a bag played with --clock; empty: as in params_file"),
    ("tf_mode", "", "none, world_to_camera, odom_to_base or map_to_odom; empty: as in params_file"),
    ("image_transport", "", "raw or compressed; empty: as in params_file"),
    ("rviz", "false", "true: start RViz with all outputs of a node in no namespace"),
)
# Launch arguments that are parameters of the node, too, and stand above params_file where given.
PARAMETERS = {
    "checkpoint": "model.checkpoint",
    "device": "model.device",
    "tf_mode": "tf.mode",
    "image_transport": "image_transport",
}


def switch(name: str, values: dict[str, str]) -> bool:
    """A truth value as YAML and launch spell it. Raises ValueError for other words."""
    word = values[name].lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"{name} is '{values[name]}'; it must be true or false")


def start(context: LaunchContext) -> list[Action]:
    """Puts the node, and RViz if wanted, together from the arguments' values."""
    value = {name: context.perform_substitution(LaunchConfiguration(name)) for name, _, _ in ARGUMENTS}
    sim_time = {"use_sim_time": switch("use_sim_time", value)} if value["use_sim_time"] else {}
    given = {
        parameter: ParameterValue(value[name], value_type=str)
        for name, parameter in PARAMETERS.items()
        if value[name]
    }
    topics = [(name, value[name]) for name in ("image", "camera_info", "depth")]
    return [
        Node(
            package="d4rt_ros",
            executable="d4rt_node",
            name="d4rt",
            namespace=value["namespace"],
            parameters=[value["params_file"], *([{**sim_time, **given}] if sim_time or given else [])],
            # A remapping is of whole names: the compressed topic needs its own.
            remappings=[*topics, ("image/compressed", value["image"] + "/compressed")],
            output="screen",
        ),
        LogInfo(
            msg="RViz stands in the frame `world`, to which /tf leads with tf_mode:=world_to_camera only",
            condition=IfCondition(
                LaunchConfiguration("rviz") if value["tf_mode"] in ("", "none") else "false"
            ),
        ),
        Node(
            package="rviz2",
            executable="rviz2",
            name="d4rt_rviz",
            arguments=["-d", SHARE + "/config/d4rt.rviz"],
            parameters=[sim_time] if sim_time else [],
            condition=IfCondition(LaunchConfiguration("rviz")),
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
