"""Weights of ONNX files in fewer bits. What is computed stays float32: a weight becomes so again when it is read.

Only operators of ONNX itself are used, so every runtime reads the files. Weights alone are rounded: to round what
flows between layers as well costs centimetres, since a text's nearest motion is a sharp choice.
"""

from typing import Any

import numpy as np

LEAST = 1024  # numbers of a weight; smaller ones stay as they are
BY_ROW = ("Gather", "Transpose")  # operators whose weight has its outputs in rows


def compressed(model: Any, precision: str) -> Any:
    """An onnx.ModelProto with its weights in `float32`, `float16` or `int8`; another one, unless float32."""
    if precision == "float32":
        return model
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    kept, nodes = [], []
    for weight in made.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < LEAST:
            kept.append(weight)
        elif precision == "float16":
            kept.append(onnx.numpy_helper.from_array(values.astype(np.float16), f"{weight.name}.half"))
            nodes.append(
                onnx.helper.make_node("Cast", [f"{weight.name}.half"], [weight.name], to=onnx.TensorProto.FLOAT)
            )
        else:
            axis = output_axis(made.graph, weight.name)
            parts, node = quantised(weight.name, values, axis)
            kept += parts
            nodes.append(node)
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    nodes += made.graph.node
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def quantised(name: str, values: np.ndarray, axis: int) -> tuple[list[Any], Any]:
    """A weight as int8 and a scale for each of its outputs, which lie along `axis`; and the node that multiplies."""
    import onnx

    most = np.abs(values).max(1 - axis, keepdims=True)
    scale = np.where(most > 0, most, 1).astype(np.float32) / 127
    whole = np.rint(values / scale).astype(np.int8)
    inputs = [f"{name}.int8", f"{name}.scale"]
    arrays = zip((whole, scale.ravel()), inputs, strict=True)
    parts = [onnx.numpy_helper.from_array(each, title) for each, title in arrays]
    return parts, onnx.helper.make_node("DequantizeLinear", inputs, [name], axis=axis)


def output_axis(graph: Any, name: str) -> int:
    """Along which axis a weight's outputs lie: its columns, unless it is looked up by row, or turned before use."""
    for node in graph.node:
        if name in node.input:
            turned = any(each.name == "transB" and each.i for each in node.attribute)
            return 0 if turned or node.op_type in BY_ROW else 1
    return 1
