"""A model that many tests share, and the order of the files: processes take whole
ones, and each that runs long begins before those that fill up the time of the others."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

LONG = ["test_mlx_ops", "test_dwq", "test_quantize", "test_threads",
        "test_dynamic", "test_faults", "test_learned", "test_system_limits",
        "test_awq", "test_methods", "test_gptq", "test_memory", "test_stream",
        "test_long_text", "test_families", "test_functions"]


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.stem
        return LONG.index(name) if name in LONG else len(LONG)
    items.sort(key=place)  # which keeps the order within a file


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """Three blocks that take a third of the demo model's time, for tests that do not
    ask how good an output is. Tests read it and write elsewhere."""
    import random_model  # here, as it needs MLX
    folder = tmp_path_factory.mktemp("small") / "model"
    random_model.write(folder, num_hidden_layers=3)
    return folder
