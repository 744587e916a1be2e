"""lwm2m-server: device management and firmware updates over LwM2M, CoAP and DTLS."""
