"""Command lines: `lsd-train`, `lsd-sample`, `lsd-eval`.

Results on stdout, progress on stderr, exit code 0, 1 or 2 (usage).
"""
