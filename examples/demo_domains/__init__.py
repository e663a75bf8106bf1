"""What `examples/demo.py` shows, one module for each domain: `run(setting)` returns a `Finding`."""
