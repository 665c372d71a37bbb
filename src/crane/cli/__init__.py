"""The command line: each command is a Hydra app."""
