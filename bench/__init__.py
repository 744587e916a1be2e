"""Speed and memory, each figure beside a peer's, measured in the same run: `scripts/bench`."""
