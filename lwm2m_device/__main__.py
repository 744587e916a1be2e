"""`python -m lwm2m_device` is the command `lwm2m-device`."""

from lwm2m_device.cli import main

main()
