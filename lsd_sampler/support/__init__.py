"""Parts that every layer uses, and that know nothing of sampling: checks, files, the Hub."""
