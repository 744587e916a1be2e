"""A kit for device developers: scenarios of updates under faults, and a player that replays them against a client."""
