"""The entry point of ``python -m cacheflow`` and of the program ``cacheflow``, which run the command line."""

import sys


def run() -> int:
    """Run CacheFlow's command line program with the arguments of this process; return the exit code."""
    # Before anything else is imported: what follows does not even parse on an old Python.
    if sys.version_info < (3, 11):  # noqa: UP036 - that is what it is for
        sys.stderr.write("cacheflow: needs Python 3.11 or later; this is {}.{}\n".format(*sys.version_info[:2]))
        return 2
    if sys.argv[1:2] in ([], ["serve"]) or sys.argv[1].startswith("-"):
        import signal

        # A node reads its files anew at SIGHUP. Until its handler is there the signal would end the process, which takes half a
        # second to import; what a reload asks for is read after that anyway.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from cacheflow.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
