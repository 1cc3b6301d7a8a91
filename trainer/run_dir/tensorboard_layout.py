"""Layout of TensorBoard's Custom Scalars page, which shows the schedule beside loss and accuracy.

TensorBoard's other pages group charts by tag, and a closed group hides charts such as the batch
size.
"""

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from trainer.run_dir.metrics import TAGS

# Maps the title of each chart to the name of its value in metrics.jsonl. A laptop shows two charts
# per row, so charts that belong together are neighbours.
_CHARTS = {
    "top-1": "top1",
    "loss": "loss",
    "batch size": "batch_size",
    "learning rate": "learning_rate",
    "noise scale g, predicted": "noise_scale",
    "gradient noise scale, measured": "gradient_noise_scale",
    "momentum": "momentum",
}


def event(time: float) -> Event:
    """Returns the layout as an event with the wall time `time`, in seconds since 1970."""
    charts = [
        layout_pb2.Chart(title=title, multiline={"tag": [f"^{TAGS[name]}$"]})
        for title, name in _CHARTS.items()
    ]
    category = layout_pb2.Category(title="what is learned, and the schedule", chart=charts)
    layout = layout_pb2.Layout(category=[category])
    tensor = TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()])
    value = Summary.Value(
        tag=metadata.CONFIG_SUMMARY_TAG, metadata=metadata.create_summary_metadata(), tensor=tensor
    )
    return Event(wall_time=time, summary=Summary(value=[value]))
