"""Builds TensorBoard's summaries of pictures and texts, without TensorFlow."""

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text import metadata


def image(tag: str, png: bytes) -> Summary:
    """Returns a PNG picture for TensorBoard's Images page."""
    picture = Summary.Image(encoded_image_string=png)
    return Summary(value=[Summary.Value(tag=tag, image=picture)])


def lines(tag: str, text: str) -> Summary:
    """Returns `text` for TensorBoard's Text page, which shows its lines unchanged."""
    # The page formats texts as Markdown, but shows indented lines unchanged, as code.
    indented = "".join(f"    {line}\n" for line in text.splitlines())
    content = indented.encode(errors="backslashreplace")
    about = metadata.create_summary_metadata(display_name=tag, description="")
    tensor = TensorProto(dtype=DT_STRING, string_val=[content])
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])
