"""What holds for every test."""

import signal

# A shell that starts us in the background has its children ignore Ctrl-C, and theirs as well;
# tests of what Ctrl-C does need it as it is in a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
