"""What a learned sampler holds, and its files."""
