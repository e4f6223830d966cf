"""Runs tests of the library's own in a sandbox. Before this comes, from the test: NAME (a module below `test`), ONLY (patterns
of those that are run, none for all), PART (which of how many parts, by class), EXCEPTIONS (patterns of those left out).
"""


def cases(suite):
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from cases(one)
        else:
            yield one


def matches(case, patterns):
    return any(fnmatch.fnmatchcase(case.id(), pattern) for pattern in patterns)


# Methods that start processes import this file again.
if __name__ == "__main__":
    import fnmatch
    import importlib
    import sys
    import unittest
    import zlib
    from test import support

    # As the library's own runner has it where nothing else is said: no tests that need gigabytes or a network's peer.
    support.use_resources = []
    number, parts = PART
    whole = getattr(importlib.import_module("test." + NAME), "test_main", None)
    if whole is not None and parts == 1 and not EXCEPTIONS:
        # A module that makes its tests itself. It raises what has failed.
        whole()
        sys.exit(0)
    every = list(cases(unittest.defaultTestLoader.loadTestsFromName("test." + NAME)))
    broken = [case.id() for case in every if case.id().startswith("unittest.loader._FailedTest")]
    # A pattern that names no test has had its day.
    stale = [pattern for pattern in [*EXCEPTIONS, *ONLY] if not any(matches(case, [pattern]) for case in every)]
    chosen = [case for case in every if not matches(case, EXCEPTIONS) and (not ONLY or matches(case, ONLY))]
    # By class, whose own preparations are made once.
    mine = [case for case in chosen if zlib.crc32(type(case).__qualname__.encode()) % parts == number]
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=1).run(unittest.TestSuite(mine))
    print("ran", result.testsRun, "left out", len(every) - len(chosen), "stale", stale, "broken", broken, flush=True)
    sys.exit(0 if result.wasSuccessful() and not stale and not broken else 1)
