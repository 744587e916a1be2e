"""Devices.

Their record, their attributes and the filter language over them.  Pure: no I/O, no clock, no database.
"""
