"""Large blocks go back to the system."""

import json
import os
import platform
import subprocess
import sys

import pytest

# The first block that is freed raises glibc's threshold; blocks that are still
# used keep the heap from shrinking.
SCRIPT = """
import json
import numpy as np
from training.benchmark.memory import _status
from training.freed_memory import give_back

done = give_back()
first = np.ones(2**24, "uint8")
del first
blocks = [np.ones(2**23, "uint8") for _ in range(20)]
before = _status("VmRSS:", 0.0)
del blocks[::2]
print(json.dumps([done, before - _status("VmRSS:", 0.0)]))
"""


def run(**environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="glibc's malloc only"
)
def test_large_blocks_are_given_back():
    done, returned = run()
    assert done and returned > 9 * 2**23
    # A threshold of the environment stays: here one so high that all are kept.
    done, returned = run(MALLOC_MMAP_THRESHOLD_=str(2**25))
    assert not done and returned < 2**23
