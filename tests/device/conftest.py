"""Tests of the shim run kernels that are wrong on purpose: in a process of their own, whose memory may be spoilt."""

from __future__ import annotations

import os
import sys
import traceback
import warnings

import pytest

PASSED, FAILED, SKIPPED = 0, 1, 2


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a test of test_shim*.py in a child process."""
    if not pyfuncitem.path.name.startswith("test_shim"):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which the child uses none
        child = os.fork()
    if child == 0:
        status = FAILED
        try:
            pyfuncitem.obj(**arguments)
            status = PASSED
        except pytest.skip.Exception:
            status = SKIPPED
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == SKIPPED:
        pytest.skip("skipped in its process")
    assert status == PASSED, f"the test's process ended with {status}"
    return True
