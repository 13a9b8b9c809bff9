"""The command line: one command, one file. Heavy imports wait until the arguments are known to be right."""
