"""An object graph for a checkpoint that lacks some of the tensors that the graph was saved with."""

from collections.abc import Collection

from ckptd.errors import FormatError
from ckptd.formats.messages import PARSE_ERRORS, TrackableObjectGraph


def without_tensors(graph: bytes, keys: Collection[str]) -> bytes:
    """Return a serialized `TrackableObjectGraph` whose objects have no values under `keys`.

    `tf.train.Checkpoint.restore` asks for every key that the graph names, and gives up at the first
    that is not there; of an object that names none it leaves the value as it is. Raises
    `FormatError` where `graph` is no such message.
    """
    try:
        message = TrackableObjectGraph.FromString(graph)
    except PARSE_ERRORS as error:
        raise FormatError(f"the object graph does not parse: {error}") from error
    for node in message.nodes:
        kept = [each for each in node.attributes if each.checkpoint_key not in keys]
        if len(kept) < len(node.attributes):
            del node.attributes[:]
            node.attributes.extend(kept)
    pruned: bytes = message.SerializeToString()
    return pruned
