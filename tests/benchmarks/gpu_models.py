"""Networks with random weights, folded and typed, to measure speed with: widths 16, 32, 64 in FP32, FP16, INT8.

    python tests/benchmarks/gpu_models.py FOLDER

Speed does not depend on the weights. Making them needs PyTorch, measuring engines of them does not: the
folder can be made elsewhere and taken to the GPU.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

WIDTHS = (16, 32, 64)
PRECISIONS = ("fp32", "fp16", "int8")
SIZE = 256
RANGE = (-3.0, 3.0)
"""Of every quantised tensor: the compiler does not care."""


def model_path(folder: Path, width: int, precision: str) -> Path:
    """Where a network is."""
    return folder / f"w{width}.{precision}.onnx"


def make_generator(width: int) -> Any:
    """A generator with random weights, in PyTorch."""
    import torch

    from cxredge_train.networks import Generator, NetworkConfig, initialise

    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=width, input_size=SIZE))
    initialise(generator)
    return generator.eval()


def make_models(folder: Path, width: int) -> None:
    """Write one width in all precisions, unless it is there."""
    if all(model_path(folder, width, precision).is_file() for precision in PRECISIONS):
        return
    from cxredge.contract import Contract
    from cxredge_calibration.layers import find_layers, prepare_graph
    from cxredge_calibration.model_file import add_contract, write_model
    from cxredge_calibration.quantisation import quantise
    from cxredge_export.conversion import to_onnx
    from cxredge_export.folding import TRANSPOSED_FOLDS, fold, fold_code
    from cxredge_export.precision import to_fp16

    contract = Contract(name=f"w{width}", width=width, input_size=SIZE, code="a_seg", licence="none")
    model = to_onnx(fold(fold_code(make_generator(width), None), TRANSPOSED_FOLDS), SIZE)
    add_contract(model, contract)
    graph = prepare_graph(model, contract)
    layers = find_layers(graph)
    quantised = quantise(graph, layers, {layer.source: RANGE for layer in layers})
    add_contract(quantised, replace(contract, precision="int8", calibration={"ranges": list(RANGE)}))
    for precision, made in (("fp32", model), ("fp16", to_fp16(model)), ("int8", to_fp16(quantised))):
        write_model(made, model_path(folder, width, precision))


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for width in WIDTHS:
        make_models(folder, width)


if __name__ == "__main__":
    main()
