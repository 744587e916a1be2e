"""Firmware images for tests: MCUboot's by imgtool, ESP-IDF's by a builder that esptool checks, and containers."""

from firmware_files.containers import elf, intel_hex, uf2
from firmware_files.esp import esp_app, esp_signed, esptool
from firmware_files.mcuboot import KEY_KINDS, mcuboot, private_key, public_pem

__all__ = [
    "KEY_KINDS",
    "elf",
    "esp_app",
    "esp_signed",
    "esptool",
    "intel_hex",
    "mcuboot",
    "private_key",
    "public_pem",
    "uf2",
]
