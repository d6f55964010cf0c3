"""Weights of ONNX files in fewer bits. What is computed stays float32: a weight becomes so again when it is read.

Only operators of ONNX itself are used, so every runtime reads the files. Weights alone are rounded: to round what
flows between layers as well costs centimetres, since a text's nearest motion is a sharp choice.
"""

from typing import Any

import numpy as np

LEAST = 1024  # numbers of a weight; smaller ones stay as they are
BLOCK = 32  # numbers in a row that share a scale: of a whole row of 384, joints are off by twice as much


def compressed(model: Any, precision: str) -> Any:
    """An onnx.ModelProto with its weights in `float32`, `float16`, `int8` or `mixed`; another one, unless float32.

    `mixed` is int8 for what is looked up, as words' vectors are, and float16 for what a layer multiplies by: the error
    of a layer grows through those behind it.
    """
    if precision == "float32":
        return model
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    parts, nodes, tables = [], [], looked_up(model)
    for weight in made.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size >= LEAST and values.size % BLOCK == 0:
            of_kind = {"mixed": "int8" if weight.name in tables else "float16"}.get(precision, precision)
            smaller, unpacking = PACKERS[of_kind](weight.name, values)
            parts += smaller
            nodes += unpacking
        else:
            parts.append(weight)
    nodes += made.graph.node
    for kept, found in ((made.graph.initializer, parts), (made.graph.node, nodes)):
        del kept[:]
        kept.extend(found)
    return made


def looked_up(model: Any) -> set[str]:
    """Names of the weights of which only rows are taken."""
    return {node.input[0] for node in model.graph.node if node.op_type == "Gather"}


def halved(name: str, values: np.ndarray) -> tuple[list[Any], list[Any]]:
    """A weight in float16, and what makes it float32 again."""
    from onnx import TensorProto, helper, numpy_helper

    half = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
    return [half], [helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT)]


def quantised(name: str, values: np.ndarray) -> tuple[list[Any], list[Any]]:
    """A weight as int8 with a scale for every BLOCK of it, and what multiplies them."""
    from onnx import helper, numpy_helper

    block_NB = values.reshape(-1, BLOCK)
    most_N = np.abs(block_NB).max(1)
    scale_N = np.where(most_N > 0, most_N, 1).astype(np.float32) / 127
    arrays: dict[str, np.ndarray] = {
        "int8": np.rint(block_NB / scale_N[:, None]).astype(np.int8),
        "scale": scale_N,
        "shape": np.array(values.shape, np.int64),
    }
    parts = [numpy_helper.from_array(array, f"{name}.{kind}") for kind, array in arrays.items()]
    whole, scale, shape = (part.name for part in parts)
    return parts, [
        helper.make_node("DequantizeLinear", [whole, scale], [f"{name}.blocks"], axis=0),
        helper.make_node("Reshape", [f"{name}.blocks", shape], [name]),
    ]


PACKERS = {"float16": halved, "int8": quantised}
