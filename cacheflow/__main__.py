"""The entry point of ``python -m cacheflow``, which runs the command line."""

import sys

if __name__ == "__main__":
    # Before anything else is imported: what follows does not even parse on an old Python.
    if sys.version_info < (3, 11):  # noqa: UP036 - that is what it is for
        sys.stderr.write("cacheflow: needs Python 3.11 or later; this is {}.{}\n".format(*sys.version_info[:2]))
        sys.exit(2)
    from cacheflow.cli.main import main

    sys.exit(main())
