"""Order of the files: processes take whole ones, and each that runs long begins
before those that fill up the time of the others."""

LONG = ["test_mlx_ops", "test_dwq", "test_quantize", "test_threads",
        "test_dynamic", "test_faults", "test_learned", "test_system_limits",
        "test_awq", "test_methods", "test_gptq", "test_memory", "test_stream",
        "test_long_text", "test_families", "test_functions"]


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.stem
        return LONG.index(name) if name in LONG else len(LONG)
    items.sort(key=place)  # which keeps the order within a file
