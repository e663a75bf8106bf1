"""Command lines: `lsd-train`, `lsd-sample`, `lsd-eval`.

Results go to stdout and progress to stderr. The exit code is 0, 1 or 2 (usage).
"""
