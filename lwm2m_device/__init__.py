"""The reference device: an LwM2M client with simulated flash, a boot loader and a manifest processor."""
