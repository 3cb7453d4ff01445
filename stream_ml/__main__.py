"""`python -m stream_ml`: the command line, where `stream-ml` is not on the path."""

import sys

from stream_ml.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
