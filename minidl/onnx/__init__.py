"""Export of models to ONNX: ``export(path, model)`` (the ``onnx`` extra).

A model becomes a graph of standard operators (opset 17) for any number of rows, in the dtype of its
parameters. ``layers`` has the operators of each layer in inference, ``maps`` those of the maps onto
the simplex, ``steps`` those of features, labels and probabilities; ``graph`` collects the nodes.
"""

from minidl.onnx.exporting import export, to_onnx

__all__ = ["export", "to_onnx"]
