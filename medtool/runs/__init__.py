"""Runs, the folders of trained networks: how they are written, read and fed, for every command that needs one."""
