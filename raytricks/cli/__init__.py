"""The command line: parses, calls the API, turns errors into one line and an exit code."""
