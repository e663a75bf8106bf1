"""What every layer uses and nothing here is about sampling: checks, files, the Hub."""
